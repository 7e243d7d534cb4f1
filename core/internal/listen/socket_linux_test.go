package listen

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tunneld/tunneld/internal/bare"
)

// TestBacklog: the queue's length can be changed, and zero is the system's, also
// after another.
func TestBacklog(t *testing.T) {
	s, err := Bind(t.Context(), "127.0.0.1:0", Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	length := func() uint32 {
		t.Helper()
		var info *unix.TCPInfo
		// Of a listening socket this field is the queue's length.
		if err := s.ln.Control(func(fd uintptr) { info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) }); err != nil {
			t.Fatal(err)
		}
		if err != nil {
			t.Fatal(err)
		}
		return info.Sacked
	}
	system := length()
	for _, c := range []struct {
		backlog int
		want    uint32
	}{{7, 7}, {9, 9}, {0, system}} {
		if err := s.SetBacklog(c.backlog); err != nil {
			t.Fatal(err)
		}
		if got := length(); got != c.want {
			t.Errorf("backlog %d: a queue of %d, want %d", c.backlog, got, c.want)
		}
	}
}

// TestCloseEndsAPause: a listener that cannot accept holds up neither a stop nor
// a reload.
func TestCloseEndsAPause(t *testing.T) {
	s, err := Bind(t.Context(), "127.0.0.1:0", Options{})
	if err != nil {
		t.Fatal(err)
	}
	s.pause = time.Hour
	// From now on every accept fails.
	if err := s.ln.Control(func(fd uintptr) { err = unix.Shutdown(int(fd), unix.SHUT_RD) }); err != nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	paused := make(chan struct{}, 1)
	s.Serve(quiet(), func(c *bare.Socket, _ bare.Peer) { c.Close() }, func() { paused <- struct{}{} })
	<-paused
	closed := make(chan error, 1)
	go func() { closed <- s.Close() }()
	select {
	case err := <-closed:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("it waits for the end of the pause")
	}
}
