package unixsock

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/tunneld/tunneld/internal/nettest"
)

// own lets this process's user connect.
var own = Access{Mode: 0o600, UID: -1, GID: -1}

func mustListen(t *testing.T, path string, a Access) (*net.UnixListener, *Place) {
	t.Helper()
	ln, p, err := Listen(t.Context(), path, a)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = p.Remove()
		_ = ln.Close()
	})
	return ln, p
}

// dead leaves a socket that nobody serves.
func dead(t *testing.T, path string) {
	t.Helper()
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	ln.SetUnlinkOnClose(false)
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}
}

func wantFiles(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("%s holds %q, want %q", dir, got, want)
	}
}

func wantMode(t *testing.T, path string, want fs.FileMode) {
	t.Helper()
	if info, err := os.Lstat(path); err != nil || info.Mode() != fs.ModeSocket|want {
		t.Errorf("%s: %v, %v; want %v", path, info.Mode(), err, want)
	}
}

// setUmask sets the umask until the test ends.
func setUmask(t *testing.T, umask int) {
	t.Helper()
	before := syscall.Umask(umask)
	t.Cleanup(func() { syscall.Umask(before) })
}

// TestBoundClosed: between its bind and the setting of its permissions nobody can connect,
// also where the umask would let everybody.
func TestBoundClosed(t *testing.T) {
	path := filepath.Join(nettest.SocketDir(t), "s")
	setUmask(t, 0)
	ln, err := bindClosed(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	wantMode(t, path, 0)
}

// TestAccess: a socket has the permissions that were asked for, whatever the umask is, and
// others once they are set.
func TestAccess(t *testing.T) {
	for _, umask := range []int{0, 0o077, 0o777} {
		t.Run(fmt.Sprintf("umask %03o", umask), func(t *testing.T) {
			path := filepath.Join(nettest.SocketDir(t), "s")
			setUmask(t, umask)
			_, p := mustListen(t, path, Access{Mode: 0o666, UID: -1, GID: -1})
			wantMode(t, path, 0o666)
			for _, mode := range []fs.FileMode{0o600, 0o660, 0o606, 0} {
				a := Access{Mode: mode, UID: os.Geteuid(), GID: os.Getegid()}
				if err := p.Set(a); err != nil || p.Access() != a {
					t.Errorf("%v: %v, %v", mode, err, p.Access())
				}
				wantMode(t, path, mode)
			}
		})
	}
}

// TestOwner: root can give a socket away, and back to who made it. Where that fails, everything
// is as it was.
func TestOwner(t *testing.T) {
	dir := nettest.SocketDir(t)
	path := filepath.Join(dir, "s")
	_, p := mustListen(t, path, Access{Mode: 0o660, UID: -1, GID: -1})
	given := Access{Mode: 0o606, UID: 12345, GID: 23456}
	ids := func() (uid, gid uint32) {
		info, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		sys := info.Sys().(*syscall.Stat_t)
		return sys.Uid, sys.Gid
	}
	if os.Geteuid() != 0 {
		var e *Error
		err := p.Set(given)
		if !errors.As(err, &e) || !errors.Is(err, fs.ErrPermission) || !strings.Contains(e.Hint, "only root") {
			t.Errorf("%v", err)
		}
		wantMode(t, path, 0o660)
		if uid, _ := ids(); int(uid) != os.Geteuid() || p.Access().Mode != 0o660 {
			t.Errorf("user %d, %v", uid, p.Access())
		}
		other := filepath.Join(dir, "t")
		if _, _, err := Listen(t.Context(), other, given); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("%v", err)
		}
		wantFiles(t, dir, "s")
		return
	}
	if err := p.Set(given); err != nil {
		t.Fatal(err)
	}
	wantMode(t, path, 0o606)
	if uid, gid := ids(); uid != 12345 || gid != 23456 {
		t.Errorf("it belongs to %d and %d", uid, gid)
	}
	if err := p.Set(own); err != nil {
		t.Fatal(err)
	}
	wantMode(t, path, 0o600)
	if uid, gid := ids(); int(uid) != os.Geteuid() || int(gid) != os.Getegid() {
		t.Errorf("it belongs to %d and %d", uid, gid)
	}
}

// TestLeavesWhatIsNotItsOwn: what is in the way stays as it is, and is said.
func TestLeavesWhatIsNotItsOwn(t *testing.T) {
	for _, c := range []struct {
		name   string
		make   func(t *testing.T, path string) error
		says   string
		served bool
	}{
		{"a file", func(_ *testing.T, path string) error { return os.WriteFile(path, []byte("precious"), 0o644) }, "not a socket", false},
		{"a folder", func(_ *testing.T, path string) error { return os.Mkdir(path, 0o755) }, "not a socket", false},
		{"a link to a dead socket", func(t *testing.T, path string) error {
			dead(t, path+"dead")
			return os.Symlink(path+"dead", path)
		}, "not a socket", false},
		{"a link to nothing", func(_ *testing.T, path string) error { return os.Symlink("nothing", path) }, "not a socket", false},
		{"a socket that is served", func(t *testing.T, path string) error {
			_, err := net.Listen("unix", path)
			return err
		}, "serves it", true},
		{"a socket of datagrams", func(t *testing.T, path string) error {
			c, err := net.ListenPacket("unixgram", path)
			if err == nil {
				t.Cleanup(func() { c.Close() })
			}
			return err
		}, "of another type", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(nettest.SocketDir(t), "s")
			if err := c.make(t, path); err != nil {
				t.Fatal(err)
			}
			before, err := os.Lstat(path)
			if err != nil {
				t.Fatal(err)
			}
			_, _, err = Listen(t.Context(), path, own)
			var e *Error
			if !errors.As(err, &e) || !strings.Contains(e.Error(), c.says) || e.Served != c.served || e.Path != path || e.Hint == "" {
				t.Errorf("%v; want %q", err, c.says)
			}
			if after, err := os.Lstat(path); err != nil || !os.SameFile(before, after) {
				t.Errorf("it is not there any more: %v", err)
			}
		})
	}
}

func TestReplacesADeadSocket(t *testing.T) {
	dir := nettest.SocketDir(t)
	path := filepath.Join(dir, "s")
	dead(t, path)
	mustListen(t, path, own)
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	wantFiles(t, dir, "s")
}

// TestLeavesAnothersSocket: who took the place over keeps it, and its permissions.
func TestLeavesAnothersSocket(t *testing.T) {
	dir := nettest.SocketDir(t)
	path := filepath.Join(dir, "s")
	_, first := mustListen(t, path, own)
	if !first.Held() {
		t.Error("it is not in its place")
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	mustListen(t, path, own)
	if first.Held() {
		t.Error("another's is taken for it")
	}
	if err := errors.Join(first.Set(Access{Mode: 0o666, UID: -1, GID: -1}), first.Remove()); err != nil {
		t.Error(err)
	}
	wantMode(t, path, 0o600)
}

// TestOneOfManyGetsThePlace: of several that try at once, over a dead socket or over none,
// one serves it, and it is the one that is reached.
func TestOneOfManyGetsThePlace(t *testing.T) {
	for _, over := range []bool{false, true} {
		dir := nettest.SocketDir(t)
		path := filepath.Join(dir, "s")
		if over {
			dead(t, path)
		}
		type won struct {
			*net.UnixListener
			*Place
		}
		var wg sync.WaitGroup
		winners := make(chan won, 8)
		for range cap(winners) {
			wg.Go(func() {
				if ln, p, err := Listen(t.Context(), path, own); err == nil {
					winners <- won{ln, p}
				}
			})
		}
		wg.Wait()
		close(winners)
		if n := len(winners); n != 1 {
			t.Fatalf("over a dead one %t: %d serve it", over, n)
		}
		winner := <-winners
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		accepted, err := winner.Accept()
		if err != nil {
			t.Fatal(err)
		}
		accepted.Close()
		conn.Close()
		if err := errors.Join(winner.Remove(), winner.UnixListener.Close()); err != nil {
			t.Error(err)
		}
		wantFiles(t, dir)
	}
}

// TestLockedFolder: a process that holds the folder's lock for long does not hang a
// start.
func TestLockedFolder(t *testing.T) {
	dir := nettest.SocketDir(t)
	path := filepath.Join(dir, "s")
	held, err := lock(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := Listen(t.Context(), path, own); err == nil || !strings.Contains(err.Error(), "cannot be locked") {
		t.Errorf("%v", err)
	}
	wantFiles(t, dir)
	if err := held.Close(); err != nil {
		t.Fatal(err)
	}
	mustListen(t, path, own)
}

// TestSaysWhatIsWrongWithThePath, and what to do.
func TestSaysWhatIsWrongWithThePath(t *testing.T) {
	dir := nettest.SocketDir(t)
	closed := filepath.Join(dir, "closed")
	if err := os.Mkdir(closed, 0o555); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ path, says string }{
		{filepath.Join(dir, "no", "s"), "there is no folder " + filepath.Join(dir, "no")},
		{filepath.Join(dir, "file", "s"), "cannot be made: not a directory"},
		{filepath.Join(dir, strings.Repeat("x", MaxPath-len(dir))), "at most"},
		{filepath.Join(closed, "s"), "may not make it: permission denied"},
	} {
		if os.Geteuid() == 0 && strings.HasPrefix(c.path, closed) {
			continue // root may
		}
		_, _, err := Listen(t.Context(), c.path, own)
		var e *Error
		if !errors.As(err, &e) || !strings.Contains(err.Error(), c.says) || e.Hint == "" {
			t.Errorf("%s: %v; want %q", c.path, err, c.says)
		}
	}
	wantFiles(t, dir, "closed", "file")
	longest := filepath.Join(dir, strings.Repeat("x", MaxPath-len(dir)-1))
	mustListen(t, longest, own)
}
