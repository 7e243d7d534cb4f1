package websocksemu

import (
	"os"
	"strings"
	"testing"
)

// TestIdleTunnelsHoldNoPipes counts what 16 open tunnels take.
func TestIdleTunnelsHoldNoPipes(t *testing.T) {
	s := start(t, Options{})
	before := pipes(t)
	for range 16 {
		c := upgraded(t, s)
		c.send(frame + greeting + connectEcho)
		c.expect(frame + "\x05\x00" + connected)
		c.send("x")
		c.expect("x")
	}
	// The runtime keeps pipes for a while: those of other tests may be fewer now.
	if after := pipes(t); after > before {
		t.Errorf("%d pipes, %d before", after, before)
	}
}

// pipes counts the process's descriptors of pipes.
func pipes(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, e := range list {
		// The descriptor of the listing itself is gone.
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && strings.HasPrefix(to, "pipe:") {
			n++
		}
	}
	return n
}
