package follow

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestUnreadableFileIsReadOnceItCanBe: what makes a file readable may leave all of it
// as it was that a look sees.
func TestUnreadableFileIsReadOnceItCanBe(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{filepath.Dir(dir), dir} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, "f")
	write(t, path, "one")
	c := newClocked(t, File{path, sumOf("one")})
	c.settled(false)
	replace(t, path, "two")
	// A file that was changed just now is read again in any case.
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(path, old, old); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0); err != nil {
		t.Fatal(err)
	}
	unprivileged(t, func() { c.settled(true) }) // it is as good as gone
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	unprivileged(t, func() { c.after(0, true) })
	if c.set.files[0].sum != sumOf("two") {
		t.Error("the new content is not known")
	}
}

// unprivileged calls f as somebody for whom a file's mode counts.
func unprivileged(t *testing.T, f func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		f()
		return
	}
	// Of this thread alone.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	become := func(uid uintptr) {
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), uid, ^uintptr(0)); errno != 0 {
			t.Fatal(errno)
		}
	}
	become(65534)
	defer become(0)
	f()
}
