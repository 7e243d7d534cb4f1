package engine

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tunneld/tunneld/core/internal/config"
	"github.com/tunneld/tunneld/core/internal/splice"
	"github.com/tunneld/tunneld/core/status"
)

// TestBandwidthByName: a tunnel keeps to the blocks that have the names of those that it was
// made with, and is not limited by one that is gone, nor by any other.
func TestBandwidthByName(t *testing.T) {
	// text is a configuration with limits, by block.
	text := func(echo, route string, limits map[string]string) string {
		in := func(block string) string {
			if limits[block] == "" {
				return ""
			}
			return " bandwidth {\n  up = \"" + limits[block] + "\"\n }\n"
		}
		return fmt.Sprintf("upstream \"direct\" \"d\" {\n%s}\nupstream \"direct\" \"other\" {\n%s}\n", in("d"), in("other")) +
			fmt.Sprintf("listener \"tcp\" \"a\" {\n address = \"127.0.0.1:0\"\n target = %q\n%s}\n", echo, in("a")) +
			fmt.Sprintf("route %q {\n upstreams = [upstream.direct.d, upstream.direct.other]\n%s}\n", route, in(route))
	}
	r := start(t, nil, func(echo string) string { return text(echo, "one", nil) })
	at, _ := r.at(t, "tcp.a")
	c, err := net.DialTimeout("tcp", at[0], patience)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	echoed(t, c)
	// It takes a quarter of an hour where it is limited.
	const size = 1 << 20
	for _, step := range []struct {
		route   string
		limits  map[string]string
		limited bool
	}{
		{"one", map[string]string{"one": "1KiB"}, true},
		{"two", map[string]string{"two": "1KiB"}, false},
		{"one", map[string]string{"one": "1KiB", "a": "1GiB"}, true},
		{"one", map[string]string{"other": "1KiB"}, false},
		{"one", map[string]string{"d": "1KiB"}, true},
		{"one", nil, false},
	} {
		r.reload(t, text(r.echo, step.route, step.limits))
		done := make(chan error, 2)
		if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		go func() {
			_, err := io.WriteString(c, strings.Repeat("x", size))
			done <- err
		}()
		go func() {
			_, err := io.CopyN(io.Discard, c, size)
			done <- err
		}()
		if step.limited {
			r.await(t, "the tunnel waits for bandwidth", func(s status.Status) bool { return s.Pump.Paused > 0 })
			r.reload(t, text(r.echo, step.route, nil))
		}
		if err := errors.Join(<-done, <-done); err != nil {
			t.Fatalf("%+v: %v", step, err)
		}
	}
}

// TestRatesAreForgotten: those of blocks that no configuration has, once no tunnel of theirs
// is open.
func TestRatesAreForgotten(t *testing.T) {
	pump, err := splice.New()
	if err != nil {
		t.Fatal(err)
	}
	defer pump.Close()
	r := newRates(pump)
	cfg := &config.Config{
		Listeners: []config.Listener{{Kind: "tcp", Name: "a"}},
		Upstreams: []config.Upstream{{Type: "direct", Name: "d"}},
		Routes:    []config.Route{{Name: "r"}},
	}
	open, gone := blocksOf{"tcp.a", "old", "direct.d"}, blocksOf{"tcp.b", "r", "direct.e"}
	shared := r.of(open)
	r.of(gone)
	if r.of(open) != shared {
		t.Error("tunnels of the same blocks do not share their rates")
	}
	r.inForce(cfg)
	ids := func() []string { return slices.Sorted(maps.Keys(r.blocks)) }
	r.retain(cfg, map[blocksOf]bool{open: true})
	if got, want := ids(), []string{"listener.tcp.a", "route.old", "route.r", "upstream.direct.d"}; !slices.Equal(got, want) || len(r.tunnels) != 1 || r.of(open) != shared {
		t.Errorf("%q are kept, want %q", got, want)
	}
	r.retain(cfg, nil)
	if got, want := ids(), []string{"listener.tcp.a", "route.r", "upstream.direct.d"}; !slices.Equal(got, want) || len(r.tunnels) != 0 {
		t.Errorf("%q are kept, want %q", got, want)
	}
}
