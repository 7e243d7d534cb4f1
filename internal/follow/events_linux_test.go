package follow

import (
	"os"
	"path/filepath"
	"testing"
)

// TestEvents are told of a folder as long as it is watched, and of one that has come
// in the place of another.
func TestEvents(t *testing.T) {
	dir := t.TempDir()
	if !local(dir) {
		t.Skip("the folder for temporary files is on a file system of which no events come")
	}
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	mkdir := func(path string) {
		t.Helper()
		if err := os.Mkdir(path, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	mkdir(a)
	mkdir(b)
	e := newEvents()
	defer e.close()
	if e.watcher == nil {
		t.Skip("the system has no inotify instance left")
	}
	if !e.watch(map[string]bool{a: true, b: true}) {
		t.Fatal("not all are watched")
	}
	write(t, filepath.Join(b, "f"), "")
	called(t, e.c)
	if e.watch(map[string]bool{a: true, filepath.Join(dir, "none"): true}) {
		t.Error("a folder that is not there is watched")
	}
	if l := e.watcher.WatchList(); len(l) != 1 || l[0] != a {
		t.Errorf("watched: %q", l)
	}
	if err := os.Rename(a, a+".old"); err != nil {
		t.Fatal(err)
	}
	called(t, e.c)
	mkdir(a)
	// The watch of the old one goes once the watcher has read that it has moved,
	// which is before it tells of it.
	if !e.watch(map[string]bool{a: true}) {
		t.Fatal("the new folder is not watched")
	}
	drain(e.c)
	write(t, filepath.Join(a, "f"), "")
	called(t, e.c)
}

func drain(c <-chan struct{}) {
	select {
	case <-c:
	default:
	}
}

func TestPseudoFileSystemsAreNotLocal(t *testing.T) {
	if local("/proc") || local("/none") {
		t.Error("events of /proc are waited for")
	}
}
