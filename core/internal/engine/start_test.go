package engine

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tunneld/tunneld/core/internal/control"
	"github.com/tunneld/tunneld/core/status"
)

// TestReloadDuringTheStart: the control socket is there before the start has ended,
// and a reload that comes then waits for its turn. It is the race detector that
// tells where it does not.
func TestReloadDuringTheStart(t *testing.T) {
	dir, err := os.MkdirTemp("", "start") // a socket's path has to be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket, path := filepath.Join(dir, "c"), filepath.Join(dir, "tunneld.hcl")
	config := fmt.Sprintf("control { address = \"unix://%s\" }\nmetrics { address = \"127.0.0.1:0\" }\n", socket) +
		"upstream \"direct\" \"d\" {}\nroute \"r\" { upstreams = [upstream.direct.d] }\n" +
		"listener \"tcp\" \"l\" {\n address = \"127.0.0.1:0\"\n target = \"127.0.0.1:1\"\n}\n"
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := control.NewClient(socket)
	if err != nil {
		t.Fatal(err)
	}
	type answer struct {
		status.Reload
		err error
	}
	answers := make(chan answer, 1)
	asked := false
	log := logFunc(func(line string) {
		if !asked && strings.Contains(line, "serving metrics") { // the control socket is bound, and it is still the start
			asked = true
			go func() {
				r, err := c.Reload(t.Context(), status.ReloadOptions{})
				answers <- answer{r, err}
			}()
		}
	})
	e, diags, err := Start(t.Context(), Options{ConfigPath: path, Log: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		t.Fatal(err, diags)
	}
	if a := <-answers; a.err != nil || a.Error != "" || a.Generation != 2 {
		t.Errorf("%+v", a)
	}
	if err := e.Stop(t.Context()); err != nil {
		t.Error(err)
	}
}
