package userfile_test

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/userfile"
)

// TestOnlyRegularFiles: each refusal comes at once, and says what is there. The
// FIFO has no writer, so that reading it the plain way would never return.
func TestOnlyRegularFiles(t *testing.T) {
	// A socket's path has to be short.
	dir, err := os.MkdirTemp("", "uf")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	fifo, sock, link := filepath.Join(dir, "fifo"), filepath.Join(dir, "sock"), filepath.Join(dir, "link")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(fifo, link); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	for _, tc := range []struct{ path, want string }{
		{fifo, "it is a FIFO or pipe"},
		{link, "it is a FIFO or pipe"},
		{sock, "it is a socket"},
		{dir, "it is a folder"},
		{"/dev/zero", "it is a device"},
	} {
		_, err := userfile.Read(tc.path, 1<<20)
		var pe *fs.PathError
		if !errors.Is(err, userfile.ErrNotRegular) || !errors.As(err, &pe) || pe.Path != tc.path || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v; want %q", tc.path, err, tc.want)
		}
	}
	if _, err := userfile.Read(filepath.Join(dir, "none"), 9); !errors.Is(err, fs.ErrNotExist) || errors.Is(err, userfile.ErrNotRegular) {
		t.Errorf("a file that is not there: %v", err)
	}
}

func TestReadIsBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	write(t, path, strings.Repeat("x", 1024))
	if f, err := userfile.Read(path, 1024); err != nil || len(f.Data) != 1024 || f.Mark {
		t.Errorf("as much as is allowed: %d bytes, %v, %v", len(f.Data), f.Mark, err)
	}
	write(t, path, strings.Repeat("x", 1025))
	_, err := userfile.Read(path, 1024)
	if !errors.Is(err, userfile.ErrTooLarge) || !strings.Contains(err.Error(), "it is larger than 1 KiB") {
		t.Errorf("a byte more: %v", err)
	}
	// A hole of a terabyte is not read.
	if err := os.Truncate(path, 1<<40); err != nil {
		t.Skip(err)
	}
	if _, err := userfile.Read(path, 1<<20); err == nil || !strings.Contains(err.Error(), "it is larger than 1 MiB") {
		t.Errorf("a terabyte: %v", err)
	}
}

// TestEndlessFile: the kernel's log calls itself a regular file, and reading it
// waits for the next message.
func TestEndlessFile(t *testing.T) {
	const path = "/proc/kmsg"
	f, err := userfile.Open(path)
	if err != nil {
		t.Skip(err)
	}
	f.Close()
	if _, err := userfile.Read(path, 1<<20); err == nil {
		t.Error("there was an end")
	} else if errors.Is(err, fs.ErrPermission) {
		t.Skip(err)
	}
}

func TestByteOrderMark(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	write(t, path, "\ufeffa\ufeffb")
	f, err := userfile.Read(path, 99)
	if err != nil || string(f.Data) != "a\ufeffb" || !f.Mark {
		t.Errorf("%q, %v, %v", f.Data, f.Mark, err)
	}
	if f, err = userfile.ReadFrom(strings.NewReader("\ufeff"), 3); err != nil || len(f.Data) != 0 || !f.Mark {
		t.Errorf("%q, %v, %v", f.Data, f.Mark, err)
	}
}

func TestNames(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "a"), "")
	write(t, filepath.Join(dir, "b"), "")
	names, err := userfile.Names(dir, 2)
	slices.Sort(names)
	if err != nil || !slices.Equal(names, []string{"a", "b"}) {
		t.Errorf("%q, %v", names, err)
	}
	if _, err := userfile.Names(dir, 1); err == nil || !strings.Contains(err.Error(), "more than 1 entries") {
		t.Errorf("too many: %v", err)
	}
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := userfile.Names(fifo, 9); !errors.Is(err, syscall.ENOTDIR) {
		t.Errorf("a FIFO: %v", err)
	}
}

// TestStamp: a change is seen even where it leaves size and time as they were in
// a file that is new.
func TestStamp(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	old := time.Now().Add(-time.Hour)
	state := func(text string, at time.Time) userfile.Stamp {
		t.Helper()
		write(t, path, text)
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
		f, err := userfile.Read(path, 99)
		if err != nil || string(f.Data) != text {
			t.Fatalf("%q, %v", f.Data, err)
		}
		return f.Stamp
	}
	look := func() userfile.Stamp {
		t.Helper()
		s, err := userfile.Look(path)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	s := state("one", old)
	if !s.Same(look()) || s.Same(userfile.Stamp{}) || (userfile.Stamp{}).Same(s) || (userfile.Stamp{}).Same(userfile.Stamp{}) {
		t.Error("an unchanged file is changed, or no file is one")
	}
	if state("three", old); s.Same(look()) {
		t.Error("another size was not seen")
	}
	if state("two", old.Add(time.Second)); s.Same(look()) {
		t.Error("another time was not seen")
	}
	if err := os.Rename(path, path+".old"); err != nil {
		t.Fatal(err)
	}
	if state("six", old); s.Same(look()) {
		t.Error("another file was not seen")
	}
	if s = state("new", time.Now()); s.Same(look()) {
		t.Error("a file that has just changed counts as settled")
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
