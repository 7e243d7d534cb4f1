package listen

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/bare"
	"github.com/tunneld/tunneld/internal/nettest"
	"github.com/tunneld/tunneld/internal/unixsock"
)

// onPath binds a unix socket, and returns it and its path.
func onPath(t *testing.T) (*Socket, string) {
	t.Helper()
	path := filepath.Join(nettest.SocketDir(t), "s")
	s, err := BindUnix(t.Context(), path, unixsock.Access{Mode: 0o600, UID: -1, GID: -1}, Options{Backlog: 7})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s, path
}

// TestBindUnix: the socket is at its path until it is closed, and not longer.
func TestBindUnix(t *testing.T) {
	s, path := onPath(t)
	accepted := make(chan bare.Peer, 1)
	s.Serve(quiet(), func(c *bare.Socket, peer bare.Peer) { c.Close(); accepted <- peer }, func() {})
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	if peer := <-accepted; peer.Addr.IsValid() || int(peer.Process.PID) != os.Getpid() {
		t.Errorf("peer %s", peer)
	}
	if a, ok := s.Access(); !ok || a.Mode != 0o600 || !s.InPlace() {
		t.Errorf("%v, %t, in place %t", a, ok, s.InPlace())
	}
	other := unixsock.Access{Mode: 0o660, UID: -1, GID: -1}
	if err := s.SetAccess(other); err != nil {
		t.Fatal(err)
	}
	if a, _ := s.Access(); a != other {
		t.Errorf("%v", a)
	}
	for range 2 {
		if err := s.Close(); err != nil && !errors.Is(err, net.ErrClosed) && !errors.Is(err, os.ErrClosed) {
			t.Error(err)
		}
		if _, err := os.Lstat(path); !os.IsNotExist(err) {
			t.Errorf("it is still there: %v", err)
		}
	}
	if s.InPlace() {
		t.Error("it is in its place")
	}
}

// TestFirstBytesStay: a client's first bytes are left in its socket, where the pump splices
// them; who leaves without any has sent nothing.
func TestFirstBytesStay(t *testing.T) {
	s, path := onPath(t)
	accepted := make(chan *bare.Socket, 1)
	s.Serve(quiet(), func(c *bare.Socket, _ bare.Peer) { accepted <- c }, func() {})
	for sent, want := range map[string]error{"hello": nil, "": ErrNothing} {
		client, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			_, _ = io.WriteString(client, sent)
			client.Close()
		}()
		c := NewConn(<-accepted)
		c.handshake = 10 * time.Second
		asked, fail := (&tcpProtocol{waits: true}).Learn(t.Context(), c)
		if want != nil {
			if fail == nil || !errors.Is(fail.Err, want) {
				t.Errorf("after %q: %+v", sent, fail)
			}
			c.Reset()
			continue
		}
		if fail != nil || len(asked.Ahead) > 0 {
			t.Fatalf("after %q: %+v, %q ahead", sent, fail, asked.Ahead)
		}
		if got, err := io.ReadAll(c.End().Stream); string(got) != sent || err != nil {
			t.Errorf("%q, %v", got, err)
		}
		c.Reset()
	}
}
