package sapsocksemu

import (
	"io"
	"net"
	"testing"

	"github.com/tunneld/tunneld/internal/fdtest"
	"github.com/tunneld/tunneld/internal/nettest"
)

// TestIdleTunnelsHoldNoPipes counts what 16 open tunnels take.
func TestIdleTunnelsHoldNoPipes(t *testing.T) {
	s := startT(t, Options{Trusted: true, Connectors: map[string]map[string]string{"": {"echo.corp:7": nettest.Serve(t, func(c *net.TCPConn) {
		b := make([]byte, 1)
		for _, err := c.Read(b); err == nil; _, err = c.Read(b) {
			_, _ = c.Write(b)
		}
	})}}})
	before := len(fdtest.Pipes(t))
	for range 16 {
		c := dial(t, s)
		say(t, c, "\x05\x01\x00", "\x05\x00")
		say(t, c, "\x05\x01\x00\x03\x09echo.corp\x00\x07", "\x05\x00\x00\x01\x7f\x00\x00\x01")
		if _, err := io.ReadFull(c, make([]byte, 2)); err != nil { // the bound port
			t.Fatal(err)
		}
		say(t, c, "x", "x")
	}
	// The runtime keeps pipes for a while: those of other tests may be fewer now.
	if after := len(fdtest.Pipes(t)); after > before {
		t.Errorf("%d pipes, %d before", after, before)
	}
}
