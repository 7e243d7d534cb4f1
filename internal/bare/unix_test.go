package bare

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/nettest"
	"github.com/tunneld/tunneld/internal/sockopt"
)

// unixPair returns both ends of a connection to a unix socket, which has TCP's options set as
// far as that goes.
func unixPair(t *testing.T) (dialed *net.UnixConn, accepted *Socket, peer Peer) {
	t.Helper()
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(nettest.SocketDir(t), "s"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	at := ln.Addr().(*net.UnixAddr)
	ln.SetUnlinkOnClose(false)
	l, err := ListenUnix(ln)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	if l.Addr().String() != at.Name {
		t.Errorf("address %s", l.Addr())
	}
	if err := l.SetOptions(sockopt.Options{Nodelay: true, KeepaliveIdle: 31 * time.Second, UserTimeout: time.Second}); err != nil {
		t.Errorf("options: %v", err)
	}
	if dialed, err = net.DialUnix("unix", nil, at); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = dialed.Close() })
	_ = dialed.SetDeadline(time.Now().Add(10 * time.Second))
	if accepted, peer, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	return dialed, accepted, peer
}

// TestUnix: a unix socket is accepted like a TCP one, and its peer is a process.
func TestUnix(t *testing.T) {
	dialed, accepted, peer := unixPair(t)
	me := Process{Known: true, UID: uint32(os.Geteuid()), PID: int32(os.Getpid())}
	if peer.Addr.IsValid() || peer.Process != me {
		t.Errorf("peer %+v, want %+v", peer, me)
	}
	c, err := accepted.Stream().Conn()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(dialed, "hello"); err != nil {
		t.Fatal(err)
	}
	if err := dialed.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(c); string(got) != "hello" || err != nil {
		t.Errorf("read %q, %v", got, err)
	}
	if _, err := io.WriteString(c, "back"); err != nil {
		t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(dialed); string(got) != "back" || err != nil {
		t.Errorf("read %q, %v", got, err)
	}
}

func TestPeer(t *testing.T) {
	for want, p := range map[string]Peer{
		"unix":                   {},
		"unix:uid=0":             {Process: Process{Known: true}},
		"unix:uid=1000,pid=4242": {Process: Process{Known: true, UID: 1000, PID: 4242}},
	} {
		if got := p.String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// TestUnixReset: a reset is one to a peer that has sent what nobody has read, and otherwise
// an end.
func TestUnixReset(t *testing.T) {
	for _, sent := range []string{"unread", ""} {
		dialed, accepted, _ := unixPair(t)
		if _, err := io.WriteString(dialed, sent); err != nil {
			t.Fatal(err)
		}
		accepted.Reset()
		_, err := dialed.Read(make([]byte, 1))
		if reset := errors.Is(err, syscall.ECONNRESET); reset != (sent != "") || !reset && !errors.Is(err, io.EOF) {
			t.Errorf("after %q: %v", sent, err)
		}
	}
}

// TestUnixGone: a peer that has closed is not gone, since what it has sent is still there;
// one that was not read to the end is.
func TestUnixGone(t *testing.T) {
	dialed, accepted, _ := unixPair(t)
	if accepted.Gone() {
		t.Error("it is gone at once")
	}
	if _, err := io.WriteString(dialed, "hello"); err != nil {
		t.Fatal(err)
	}
	if err := dialed.Close(); err != nil {
		t.Fatal(err)
	}
	if accepted.Gone() {
		t.Error("gone, with a word of its to read")
	}
	c, err := accepted.Stream().Conn()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if Gone(c) {
		t.Error("gone, with a word of its to read, in net's hands")
	}
	if got, err := io.ReadAll(c); string(got) != "hello" || err != nil {
		t.Errorf("read %q, %v", got, err)
	}
}

// TestInheritUnix: the path is its owner's.
func TestInheritUnix(t *testing.T) {
	path := filepath.Join(nettest.SocketDir(t), "s")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	file, err := ln.File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	l, err := Inherit(file, ln.Addr(), sockopt.Options{Nodelay: true})
	if err != nil {
		t.Fatal(err)
	}
	dialed, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer dialed.Close()
	accepted, peer, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	accepted.Close()
	if !strings.HasPrefix(peer.String(), "unix:uid=") {
		t.Errorf("peer %s", peer)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); err != nil {
		t.Error(err)
	}
	if again, err := net.Dial("unix", path); err != nil {
		t.Error(err)
	} else {
		again.Close()
	}
}
