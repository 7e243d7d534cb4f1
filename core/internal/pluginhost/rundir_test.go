package pluginhost

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tunneld/tunneld/internal/nettest"
)

func TestRunDir(t *testing.T) {
	base := nettest.SocketDir(t)
	stale := filepath.Join(base, runPrefix+"123")
	if err := os.MkdirAll(filepath.Join(stale, "1"), 0o700); err != nil {
		t.Fatal(err)
	}
	// Neither another's nor something else of that name is touched.
	for _, name := range []string{"other", runPrefix + "file"} {
		if err := os.WriteFile(filepath.Join(base, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	notes := filepath.Join(base, runPrefix+"notes")
	if err := os.Mkdir(notes, 0o700); err != nil {
		t.Fatal(err)
	}
	victim := nettest.SocketDir(t)
	if err := os.Symlink(victim, filepath.Join(base, runPrefix+"456")); err != nil {
		t.Fatal(err)
	}
	a, err := makeRunDir(base)
	if err != nil {
		t.Fatal(err)
	}
	b, err := makeRunDir(base)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(stale); !os.IsNotExist(err) {
		t.Errorf("the stale directory: %v", err)
	}
	for _, path := range []string{a.path, b.path, victim, notes, filepath.Join(base, "other"), filepath.Join(base, runPrefix+"file")} {
		info, err := os.Stat(path)
		if err != nil {
			t.Error(err)
		} else if path == a.path && info.Mode().Perm() != 0o700 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
	}
	for _, d := range []*runDir{a, b} {
		if err := d.close(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(d.path); !os.IsNotExist(err) {
			t.Errorf("%s: %v", d.path, err)
		}
	}
}

func TestRunDirDefault(t *testing.T) {
	base := nettest.SocketDir(t)
	t.Setenv("RUNTIME_DIRECTORY", filepath.Join(base, "tunneld")+":/second")
	d, err := makeRunDir("")
	if err != nil {
		t.Fatal(err)
	}
	if filepath.Dir(d.path) != filepath.Join(base, "tunneld") {
		t.Errorf("made %s", d.path)
	}
	if err := d.close(); err != nil {
		t.Error(err)
	}
	t.Setenv("RUNTIME_DIRECTORY", "")
	t.Setenv("TMPDIR", base)
	if d, err = makeRunDir(""); err != nil {
		t.Fatal(err)
	}
	if filepath.Dir(d.path) != base {
		t.Errorf("made %s", d.path)
	}
	if err := d.close(); err != nil {
		t.Error(err)
	}
}

func TestRunDirRefused(t *testing.T) {
	open := filepath.Join(nettest.SocketDir(t), "open")
	if err := os.Mkdir(open, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o777); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(nettest.SocketDir(t), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for base, want := range map[string]string{
		open:                             "others may write to it",
		"/" + strings.Repeat("long", 30): "choose a shorter daemon.run_dir",
		file:                             "not a directory",
		filepath.Join(file, "below"):     "make it, or choose another daemon.run_dir",
		"/proc":                          "choose another daemon.run_dir",
	} {
		if d, err := makeRunDir(base); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, %v", base, d, err)
		}
	}
}
