package azrelay_test

import (
	"io"
	"testing"

	"github.com/tunneld/tunneld/internal/nettest"
	"github.com/tunneld/tunneld/plugins/azrelay/azrelayemu"
)

func TestEcho(t *testing.T) {
	for _, tls := range []bool{false, true} {
		s := startEmulator(t, azrelayemu.Options{TLS: tls, Forward: []azrelayemu.Forward{{HybridConnection: "hc1", Target: nettest.Serve(t, nettest.Echo)}}})
		c := dial(t, upstream(t, body(t, s, nil)), "label")
		if _, err := io.WriteString(c, "hello"); err != nil {
			t.Fatal(err)
		}
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(c)
		if err != nil || string(b) != "hello" {
			t.Fatalf("read %q, %v", b, err)
		}
	}
}
