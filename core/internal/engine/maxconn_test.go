package engine

import (
	"math"
	"syscall"
	"testing"

	"github.com/tunneld/tunneld/core/internal/config"
)

// TestMaxConnections: each listener holds a descriptor, and there may be more of
// them than are reserved for everything else.
func TestMaxConnections(t *testing.T) {
	if got := newCeiling(&config.Config{Daemon: config.Daemon{MaxConnections: 7}, Listeners: make([]config.Listener, 1000)}); got.connections != 7 || !got.configured {
		t.Errorf("configured: %+v", got)
	}
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if limit.Cur < 2048 || limit.Cur > math.MaxInt32 {
		t.Skipf("the limit on open files is %d", limit.Cur)
	}
	none, many := newCeiling(&config.Config{}).connections, newCeiling(&config.Config{Listeners: make([]config.Listener, 1000)}).connections
	if none-many != 1000/perConnection {
		t.Errorf("%d connections without a listener, %d with 1000", none, many)
	}
	if plain := newCeiling(&config.Config{Listeners: []config.Listener{{Kind: "http"}}}).connections; plain < none/2-1 || plain > none/2 {
		t.Errorf("%d connections without a listener, %d with one that takes requests", none, plain)
	}
}
