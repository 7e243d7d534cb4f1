package engine

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"
)

// logFunc is called for each line of a log.
type logFunc func(line string)

func (f logFunc) Write(b []byte) (int, error) {
	f(string(b))
	return len(b), nil
}

// TestStatusDuringAFailingReload: at no moment have more reloads failed than were
// tried; their difference is a metric, and would be huge.
func TestStatusDuringAFailingReload(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tunneld.hcl")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("upstream \"direct\" \"d\" {}\nlistener \"tcp\" \"l\" {\n address = \"127.0.0.1:0\"\n target = \"127.0.0.1:1\"\n}\nroute \"r\" {\n upstreams = [upstream.direct.d]\n}\n")
	var e *Engine
	looks := 0
	log := logFunc(func(string) {
		if e == nil {
			return // it starts
		}
		looks++
		if s := e.Status(); s.FailedReloads > s.Reloads {
			t.Errorf("%d of %d reloads failed", s.FailedReloads, s.Reloads)
		}
	})
	e, diags, err := Start(t.Context(), Options{ConfigPath: path, Log: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		t.Fatal(err, diags)
	}
	write("nonsense")
	if out := e.Reload(t.Context()); !out.Invalid || looks == 0 {
		t.Errorf("reload %+v, %d lines of the log", out, looks)
	}
	if err := e.Stop(t.Context()); err != nil {
		t.Error(err)
	}
}
