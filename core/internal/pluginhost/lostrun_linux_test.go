package pluginhost

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/tunneld/tunneld/plugins/sdk/sdktest/fixture"
)

// TestLostRunDirectory takes the run directory away under a running plugin, as a
// cleaner of temporary files does: neither its restart nor another start fails.
func TestLostRunDirectory(t *testing.T) {
	for what, lose := range map[string]func(t *testing.T, run string){
		"removed": func(t *testing.T, run string) {
			if err := os.RemoveAll(run); err != nil {
				t.Fatal(err)
			}
		},
		"removed with its folder": func(t *testing.T, run string) {
			if err := os.RemoveAll(filepath.Dir(run)); err != nil {
				t.Fatal(err)
			}
		},
		"replaced": func(t *testing.T, run string) {
			if err := os.RemoveAll(run); err != nil {
				t.Fatal(err)
			}
			if err := os.Mkdir(run, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(run, "another's"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(what, func(t *testing.T) {
			target := echoServer(t)
			h := newHost(t, func(o *Options) { o.RunDir = filepath.Join(o.RunDir, "run") })
			p := h.start(t, Spec{Name: fixture.RelayName, Bundled: true})
			configure(t, p, 1, `{}`)
			open, err := dialTo(t, p, 1, target)
			if err != nil {
				t.Fatal(err)
			}
			lost := h.run.path
			lose(t, lost)
			exchange(t, open, "a tunnel does not need it")
			other := h.start(t, Spec{Name: fixture.DirectName, Bundled: true})
			configure(t, other, 1, `{}`)
			if err := syscall.Kill(p.State().PID, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			h.await(t, "a restart", func(s State) bool { return s.Restarts == 1 && s.Status == StatusRunning })
			for _, p := range []*Plugin{p, other} {
				c, err := dialTo(t, p, 1, target)
				if err != nil {
					t.Fatal(err)
				}
				exchange(t, c, "bytes")
			}
			if n := h.log.count("the run directory was lost and is made again"); n != 1 {
				t.Errorf("%d warnings", n)
			}
			run := h.run.path
			if err := h.Close(t.Context()); err != nil {
				t.Error(err)
			}
			if _, err := os.Stat(run); !os.IsNotExist(err) {
				t.Errorf("the new run directory is left: %v", err)
			}
			if what == "replaced" {
				if _, err := os.Stat(filepath.Join(lost, "another's")); err != nil {
					t.Errorf("what stands in the old one's place was touched: %v", err)
				}
			}
		})
	}
}
