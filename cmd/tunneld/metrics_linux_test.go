package main

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/tunneld/tunneld/plugins/sdk/sdktest/fixture"
)

// TestSpliceIsUsed: what is sent in bulk goes through the kernel, on the direct
// path and on the relay path.
func TestSpliceIsUsed(t *testing.T) {
	for _, path := range []string{"direct", "relay"} {
		t.Run(path, func(t *testing.T) {
			far := startBackend(t)
			d := startDaemon(t, withMetrics+thirdParty(t, "fix"+path, "")+fmt.Sprintf("upstream %q \"x\" {}\n", "fix"+path)+
				listener("db", "127.0.0.1:0", far.addr, "")+route("all", "", "upstream.fix"+path+".x"))
			c := d.dial(t, "tcp.db")
			echo := far.next(t)
			go func() {
				_, _ = io.Copy(echo, echo) // the client sees how it ends
				_ = echo.CloseWrite()
			}()
			const size = 32 << 20
			sent := make(chan error, 1)
			go func() {
				_, err := io.CopyN(c, zeros{}, size)
				sent <- err
			}()
			if n, err := io.CopyN(io.Discard, c, size); err != nil {
				t.Fatalf("after %d bytes: %v", n, err)
			}
			if err := <-sent; err != nil {
				t.Fatal(err)
			}
			closeWrite(t, c)
			if _, err := io.ReadAll(c); err != nil {
				t.Fatal(err)
			}
			d.log.await(t, 1, "msg", "connection")
			for _, direction := range []string{"up", "down"} {
				_, text := d.served(t, "/metrics")
				series := fmt.Sprintf(`tunneld_tunnel_bytes_total{direction=%q,listener="tcp.db",method="splice",path=%q,route="all",upstream="fix%[2]s.x"} `, direction, path)
				_, rest, _ := strings.Cut(text, series)
				var spliced float64
				if _, err := fmt.Sscan(rest, &spliced); err != nil || spliced < size/2 || spliced > size {
					t.Errorf("%s: %v of %d bytes were spliced, %v", direction, spliced, size, err)
				}
			}
		})
	}
}

// zeros never ends.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// TestCrashLoopShows in the log, the metrics, the status and /readyz, and ends by
// itself.
func TestCrashLoopShows(t *testing.T) {
	d := startDaemon(t, withMetrics+thirdParty(t, fixture.DirectName, "")+
		fmt.Sprintf("upstream %q \"x\" {\n crash_in = \"dial\"\n}\n", fixture.DirectName)+
		listener("db", "127.0.0.1:0", "127.0.0.1:1", "")+route("all", "", "upstream."+fixture.DirectName+".x"))
	if code, text := d.served(t, "/readyz"); code != http.StatusOK {
		t.Fatalf("at the start: %d %s", code, text)
	}
	// Each dial ends the process, until dials fail at once.
	deadline := time.Now().Add(patience)
	var code int
	var text string
	for code != http.StatusServiceUnavailable {
		d.dialReset(t, "tcp.db")
		if code, text = d.served(t, "/readyz"); time.Now().After(deadline) {
			t.Fatal("never said to be looping")
		}
	}
	if want := "plugin " + fixture.DirectName + " keeps dying: exit status 3"; !strings.Contains(text, want) {
		t.Errorf("not ready: %q, want %q", text, want)
	}
	_, metrics := d.served(t, "/metrics")
	if want := `tunneld_plugin_last_exit_info{exit="exit status 3",plugin="` + fixture.DirectName + `"} 1`; !strings.Contains(metrics, want) {
		t.Errorf("no %s", want)
	}
	status := d.Status()
	if len(status.Plugins) != 1 || status.Plugins[0].Restarts < 2 || status.Plugins[0].LastExit != "exit status 3" {
		t.Errorf("status %+v", status.Plugins)
	}
	d.log.await(t, 2, "plugin", fixture.DirectName, "exit", "exit status 3")
	for code != http.StatusOK {
		if code, text = d.served(t, "/readyz"); time.Now().After(deadline) {
			t.Fatalf("nobody asks for it, and it does not come back: %s", text)
		}
	}
}
