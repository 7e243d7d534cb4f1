package config_test

import (
	"crypto/sha256"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/tunneld/tunneld/core/internal/config"
	"github.com/tunneld/tunneld/internal/userfile"
)

// TestReread: the files of each body are known, those of relative paths, inner blocks and
// failed expressions too, and the bodies that are named are evaluated again, and no
// other.
func TestReread(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	sum := func(text string) userfile.Sum { return sha256.Sum256([]byte(text)) }
	target, limit, inner, plain := write("target", "a:1"), write("limit", "3"), write("inner", "x"), write("plain", "p")
	main := write("main.hcl", `
log {
  level = file("level")
}
upstream "direct" "d" {
  max_connections = file("limit")
}
upstream "acme" "a" {
  inner "x" {
    list = ["user:${file("inner")}", trimspace(file("plain"))]
  }
}
upstream "acme" "b" {
  plain = file("plain")
}
listener "tcp" "l" {
  address = "127.0.0.1:0"
  target  = file("target")
}
route "r" {
  upstreams = [upstream.direct.d]
}
`)
	write("level", "warn")
	cfg, diags := config.Parse(dir)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	if !maps.Equal(cfg.Files(), map[string]userfile.Sum{main: fileSum(t, main)}) {
		t.Errorf("files %v", slices.Collect(maps.Keys(cfg.Files())))
	}
	wantFiles := func(cfg *config.Config, want map[string]map[string]userfile.Sum) {
		t.Helper()
		if got := cfg.ValueFiles(); !maps.EqualFunc(got, want, maps.Equal) {
			t.Errorf("files of bodies %v, want %v", got, want)
		}
	}
	before := map[string]map[string]userfile.Sum{
		"upstream.direct.d": {limit: sum("3")},
		"upstream.acme.a":   {inner: sum("x"), plain: sum("p")},
		"upstream.acme.b":   {plain: sum("p")},
		"listener.tcp.l":    {target: sum("a:1")},
	}
	wantFiles(cfg, before)

	write("limit", "4")
	write("inner", "y")
	write("plain", "q")
	write("target", "b:2")
	write("main.hcl", "half an edit {")
	next, diags := cfg.Reread([]string{"upstream.direct.d", "upstream.acme.a", "listener.tcp.l"})
	if len(diags) > 0 {
		t.Fatal(diags)
	}
	wantFiles(next, map[string]map[string]userfile.Sum{
		"upstream.direct.d": {limit: sum("4")},
		"upstream.acme.a":   {inner: sum("y"), plain: sum("q")},
		"upstream.acme.b":   {plain: sum("p")},
		"listener.tcp.l":    {target: sum("b:2")},
	})
	if l := next.Listeners[0]; l.Target.String() != "b:2" || *next.Upstreams[0].Common.MaxConnections != 4 || len(next.Listeners) != 1 || len(next.Upstreams) != 3 {
		t.Errorf("listener %v, upstreams %v", l, next.Upstreams)
	}
	wantFiles(cfg, before)
	if cfg.Listeners[0].Target.String() != "a:1" || *cfg.Upstreams[0].Common.MaxConnections != 3 {
		t.Error("the configuration itself has changed")
	}

	write("limit", "many")
	if err := os.Remove(target); err != nil {
		t.Fatal(err)
	}
	next, diags = next.Reread([]string{"upstream.direct.d", "listener.tcp.l"})
	if len(diags) != 2 || !diags.HasErrors() {
		t.Errorf("diagnostics %v", diags)
	}
	if got := next.ValueFiles()["listener.tcp.l"]; !maps.Equal(got, map[string]userfile.Sum{target: {}}) {
		t.Errorf("files of a body that cannot be evaluated: %v", got)
	}
}

func fileSum(t *testing.T, path string) userfile.Sum {
	t.Helper()
	f, err := userfile.Read(path, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	return f.Sum()
}
