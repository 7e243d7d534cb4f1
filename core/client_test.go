package core

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestControlAddress: what is there comes before what is likelier.
func TestControlAddress(t *testing.T) {
	dir := t.TempDir()
	runtime, xdg := filepath.Join(dir, "runtime"), filepath.Join(dir, "xdg")
	t.Setenv("RUNTIME_DIRECTORY", runtime)
	t.Setenv("XDG_RUNTIME_DIR", xdg)
	config := filepath.Join(dir, "tunneld.hcl")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want := func(path string) {
		t.Helper()
		if got, err := ControlAddress(config); err != nil || got != "unix://"+path {
			t.Errorf("%q, %v; want %s", got, err, path)
		}
	}
	touch := func(path string) {
		t.Helper()
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, nil, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	missing := func(says ...string) {
		t.Helper()
		_, err := ControlAddress(config)
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%v; want that it is missing", err)
			return
		}
		for _, s := range says {
			if !strings.Contains(err.Error(), s) {
				t.Errorf("%v; want %q", err, s)
			}
		}
	}

	// Without a configuration, too, which is said if it does not help.
	missing(runtime+"/control.sock or "+xdg+"/tunneld/control.sock", "its configuration, "+config+", cannot be read", "name the configuration with --config")
	write("")
	missing("without control.address, daemon.run_dir, $RUNTIME_DIRECTORY and $XDG_RUNTIME_DIR it has no control socket")
	if err := os.Remove(config); err != nil {
		t.Fatal(err)
	}
	touch(xdg + "/tunneld/control.sock")
	want(xdg + "/tunneld/control.sock")
	touch(runtime + "/control.sock")
	want(runtime + "/control.sock")

	// A configuration that says where is not second-guessed.
	write("daemon {\n  run_dir = \"" + dir + "/own\"\n}\nbroken {")
	missing(dir+"/own/control.sock", "by daemon.run_dir of "+config)
	touch(dir + "/own/control.sock")
	want(dir + "/own/control.sock")
	write("control {\n  address = \"unix://" + dir + "/c\"\n}\n")
	missing(dir+"/c: is tunneld running?", "by control.address of "+config+"; if that was just changed, name the old socket with --control, or send SIGHUP")
	touch(dir + "/c")
	want(dir + "/c")
	write("control {\n  address = \"unix://c\"\n}\n")
	if _, err := ControlAddress(config); err == nil || !strings.Contains(err.Error(), "write unix:// and an absolute path") {
		t.Errorf("wrong address: %v", err)
	}
}
