package emu

import (
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"
)

// startServer returns an echo server and its listener.
func startServer(t *testing.T) (*Server, *net.TCPListener) {
	t.Helper()
	l, err := Listen("")
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s, l
}

func echo(c *net.TCPConn) { _, _ = io.Copy(c, c) }

// dial returns a connection over which one byte came back.
func dial(t *testing.T, l *net.TCPListener) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte{7}); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestServerEndsWhatItServes(t *testing.T) {
	s, l := startServer(t)
	s.Accept(l, echo)
	client := dial(t, l)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if n, err := client.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the client reads %d bytes, %v; want an end of file", n, err)
	}
	late, err := Listen("")
	if err != nil {
		t.Fatal(err)
	}
	s.Accept(late, echo)
	if c, err := net.Dial("tcp", late.Addr().String()); err == nil {
		_ = c.Close()
		t.Error("a closed server has accepted a further listener")
	}
}

func TestServerResets(t *testing.T) {
	s, l := startServer(t)
	s.Accept(l, echo)
	client := dial(t, l)
	s.Reset()
	if n, err := client.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the client reads %d bytes, %v; want a reset", n, err)
	}
	dial(t, l)
}

// TestAcceptGoesOn: an accept that fails, as it does without descriptors, does not end
// the server.
func TestAcceptGoesOn(t *testing.T) {
	s, l := startServer(t)
	if err := l.SetDeadline(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Accept(); err == nil {
		t.Fatal("accept succeeds past its deadline")
	}
	s.Accept(l, echo)
	time.AfterFunc(acceptPause, func() { _ = l.SetDeadline(time.Time{}) })
	dial(t, l)
}

func TestRemember(t *testing.T) {
	var list []*int
	for i := range 5 {
		*Remember(&list, 3) = i
	}
	if len(list) != 3 || *list[0] != 2 || *list[2] != 4 {
		t.Errorf("%d values, %v to %v", len(list), *list[0], *list[len(list)-1])
	}
}
