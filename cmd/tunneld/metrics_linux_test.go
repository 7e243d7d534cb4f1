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
			d.log.Await(t, 1, "msg", "connection")
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

// TestCrashLoopIsMended: a plugin that keeps dying of its configuration is given
// the corrected one at once, and one that does not help is refused.
func TestCrashLoopIsMended(t *testing.T) {
	far := startBackend(t)
	config := func(attributes string) string {
		return withMetrics + thirdParty(t, fixture.DirectName, "") +
			fmt.Sprintf("upstream %q \"x\" {\n %s\n}\n", fixture.DirectName, attributes) +
			listener("db", "127.0.0.1:0", far.addr, "") + route("all", "", "upstream."+fixture.DirectName+".x")
	}
	d := startDaemon(t, config(`crash_in = "dial"`))
	d.crashUntilNotReady(t)
	d.write(t, config(`crash_in = "configure"`))
	if out := d.Reload(t.Context()); !strings.Contains(out.Error, "the plugin died: exit status 3") {
		t.Errorf("a configuration that the plugin dies of: %q", out.Error)
	}
	if code, text := d.served(t, "/readyz"); code != http.StatusServiceUnavailable {
		t.Errorf("after the reload that failed: %d %s", code, text)
	}
	d.reload(t, config(""))
	if code, text := d.served(t, "/readyz"); code != http.StatusOK {
		t.Errorf("after the correction: %d %s", code, text)
	}
	c := d.dial(t, "tcp.db")
	echo := far.next(t)
	send(t, echo, "hello")
	if _, err := io.ReadFull(c, make([]byte, 5)); err != nil {
		t.Error(err)
	}
	// The one that kept dying is stopped beside the reload.
	eventually(t, "the old plugin is still listed", func() bool { return len(d.Status().Plugins) == 1 })
}

// crashUntilNotReady dials until the plugin is known to keep dying, and returns
// what /readyz then says.
func (r *daemonRig) crashUntilNotReady(t *testing.T) string {
	t.Helper()
	// Each dial ends the process, until dials fail at once.
	deadline := time.Now().Add(patience)
	for {
		r.dialReset(t, "tcp.db")
		code, text := r.served(t, "/readyz")
		if code == http.StatusServiceUnavailable {
			return text
		}
		if time.Now().After(deadline) {
			t.Fatal("never said to be looping")
		}
	}
}

// TestCrashLoopShows in the log, the metrics, the status and /readyz, and ends by
// itself.
func TestCrashLoopShows(t *testing.T) {
	d := startDaemon(t, withMetrics+thirdParty(t, fixture.DirectName, "")+
		fmt.Sprintf("upstream %q \"x\" {\n crash_in = \"dial\"\n}\n", fixture.DirectName)+
		listener("db", "127.0.0.1:0", "127.0.0.1:1", "")+route("all", "", "upstream."+fixture.DirectName+".x"))
	if code, text := d.served(t, "/readyz"); code != http.StatusOK {
		t.Fatalf("at the start: %d %s", code, text)
	}
	text := d.crashUntilNotReady(t)
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
	d.log.Await(t, 2, "plugin", fixture.DirectName, "exit", "exit status 3")
	deadline := time.Now().Add(patience)
	for code := 0; code != http.StatusOK; {
		if code, text = d.served(t, "/readyz"); time.Now().After(deadline) {
			t.Fatalf("nobody asks for it, and it does not come back: %s", text)
		}
	}
}
