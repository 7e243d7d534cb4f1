package websocksemu

import (
	"testing"

	"github.com/tunneld/tunneld/internal/fdtest"
)

// TestIdleTunnelsHoldNoPipes counts what 16 open tunnels take.
func TestIdleTunnelsHoldNoPipes(t *testing.T) {
	s := start(t, Options{})
	before := len(fdtest.Pipes(t))
	for range 16 {
		c := upgraded(t, s)
		c.send(frame + greeting + connectEcho)
		c.expect(frame + "\x05\x00" + connected)
		c.send("x")
		c.expect("x")
	}
	// The runtime keeps pipes for a while: those of other tests may be fewer now.
	if after := len(fdtest.Pipes(t)); after > before {
		t.Errorf("%d pipes, %d before", after, before)
	}
}
