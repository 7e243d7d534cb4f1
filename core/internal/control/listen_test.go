package control

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tunneld/tunneld/internal/nettest"
	"github.com/tunneld/tunneld/internal/unixsock"
)

func mustListen(t *testing.T, path string) net.Listener {
	t.Helper()
	ln, err := bind(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln
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

func TestListenMakesAPrivateSocket(t *testing.T) {
	dir := nettest.SocketDir(t)
	inner := filepath.Join(dir, "run", "tunneld")
	path := filepath.Join(inner, "control.sock")
	ln := mustListen(t, "unix://"+path)
	for name, want := range map[string]fs.FileMode{path: fs.ModeSocket | 0o600, inner: fs.ModeDir | 0o700} {
		if info, err := os.Lstat(name); err != nil || info.Mode() != want {
			t.Errorf("%s: %v, %v; want %v", name, info.Mode(), err, want)
		}
	}
	wantFiles(t, inner, "control.sock")
	if ln.Addr().String() != path {
		t.Errorf("address %s", ln.Addr())
	}
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	for range 2 {
		if err := ln.Close(); err != nil {
			t.Error(err)
		}
	}
	wantFiles(t, inner)
}

// deadSocket leaves a socket that nobody serves.
func deadSocket(t *testing.T, path string) {
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

func TestListenReplacesADeadSocket(t *testing.T) {
	dir := nettest.SocketDir(t)
	path := filepath.Join(dir, "c")
	deadSocket(t, path)
	mustListen(t, path)
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	wantFiles(t, dir, "c")
}

// TestListenLeavesWhatIsNotItsOwn: what is in the way stays as it is.
func TestListenLeavesWhatIsNotItsOwn(t *testing.T) {
	tests := []struct {
		name string
		make func(t *testing.T, path string)
		says string
	}{
		{"a file", func(t *testing.T, path string) {
			if err := os.WriteFile(path, []byte("precious"), 0o644); err != nil {
				t.Fatal(err)
			}
		}, "not a socket"},
		{"a folder", func(t *testing.T, path string) {
			if err := os.Mkdir(path, 0o755); err != nil {
				t.Fatal(err)
			}
		}, "not a socket"},
		{"a link to a dead socket", func(t *testing.T, path string) {
			dead := filepath.Join(nettest.SocketDir(t), "dead")
			deadSocket(t, dead)
			if err := os.Symlink(dead, path); err != nil {
				t.Fatal(err)
			}
		}, "not a socket"},
		{"a link to nothing", func(t *testing.T, path string) {
			if err := os.Symlink("nothing", path); err != nil {
				t.Fatal(err)
			}
		}, "not a socket"},
		{"a socket of something that is silent", func(t *testing.T, path string) {
			ln, err := net.Listen("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { ln.Close() })
		}, "serves it itself, as another of its sockets: see where else the path is written, links among its folders included, or choose another control.address"},
		{"another daemon's socket", func(t *testing.T, path string) {
			serve(t, mustListen(t, path), &fake{})
		}, "another tunneld serves it (process 812, configuration /etc/tunneld): stop that process, or choose another control.address"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := nettest.SocketDir(t)
			path := filepath.Join(dir, "c")
			tt.make(t, path)
			before, err := os.Lstat(path)
			if err != nil {
				t.Fatal(err)
			}
			ln, err := bind(path)
			if err == nil {
				ln.Close()
				t.Fatal("it was replaced")
			}
			if !strings.Contains(err.Error(), tt.says) || !strings.Contains(err.Error(), path) {
				t.Errorf("%v; want %q", err, tt.says)
			}
			if after, err := os.Lstat(path); err != nil || !os.SameFile(before, after) {
				t.Errorf("it is not there any more: %v", err)
			}
			wantFiles(t, dir, "c")
		})
	}
}

// TestCloseLeavesAnothersSocket: who took the place over keeps it.
func TestCloseLeavesAnothersSocket(t *testing.T) {
	dir := nettest.SocketDir(t)
	path := filepath.Join(dir, "c")
	first := mustListen(t, path)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	mustListen(t, path)
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	wantFiles(t, dir, "c")
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}

// TestListenSaysThatThePathIsTooLong, before it makes a folder.
func TestListenSaysThatThePathIsTooLong(t *testing.T) {
	base := nettest.SocketDir(t)
	ln, err := bind(filepath.Join(base, "d", strings.Repeat("c", unixsock.MaxPath-len(base)-len("/d/")+1)))
	if err == nil {
		ln.Close()
		t.Fatal("it is bound")
	}
	if !strings.Contains(err.Error(), "choose a shorter control.address") {
		t.Error(err)
	}
	wantFiles(t, base)
}

// acceptAll accepts until the listener is closed, and returns why it ended.
func acceptAll(ln net.Listener) (accepted chan net.Conn, ended chan error) {
	accepted, ended = make(chan net.Conn, 2*maxConns), make(chan error, 1)
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				ended <- err
				return
			}
			accepted <- c
		}
	}()
	return accepted, ended
}

// TestConnectionsAreBounded: those beyond the bound wait until one ends.
func TestConnectionsAreBounded(t *testing.T) {
	path := filepath.Join(nettest.SocketDir(t), "c")
	ln := mustListen(t, path)
	accepted, ended := acceptAll(ln)
	for range maxConns + 1 {
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	var held []net.Conn
	for range maxConns {
		held = append(held, <-accepted)
	}
	if n := len(ln.(*listener).slots); n != maxConns || len(accepted) > 0 {
		t.Errorf("%d slots are taken, %d more are accepted", n, len(accepted))
	}
	for range 2 { // the second frees nothing
		_ = held[0].Close()
	}
	held[0] = <-accepted
	// It ends also while it waits for a slot.
	if err := ln.Close(); err != nil {
		t.Error(err)
	}
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept: %v", err)
	}
	for _, c := range held {
		c.Close()
	}
	if n := len(ln.(*listener).slots); n != 0 {
		t.Errorf("%d slots are taken", n)
	}
}
