package listen

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tunneld/tunneld/core/internal/tunnel"
	"github.com/tunneld/tunneld/internal/bare"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func dial(t *testing.T, addr net.Addr) *net.TCPConn {
	t.Helper()
	c, err := net.DialTimeout("tcp", addr.String(), 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c.(*net.TCPConn)
}

func TestServeAndClose(t *testing.T) {
	s, err := Bind(context.Background(), "127.0.0.1:0", Options{Backlog: 7})
	if err != nil {
		t.Fatal(err)
	}
	s.Serve(quiet(), func(s *bare.Socket, _ bare.Peer) { go echo(tcp(t, s)) }, func() {})
	c := dial(t, s.Addr())
	if _, err := c.Write([]byte("ping")); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 4)
	if _, err := io.ReadFull(c, b); err != nil || string(b) != "ping" {
		t.Fatalf("read %q, %v", b, err)
	}
	addr := s.Addr().String()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := net.DialTimeout("tcp", addr, time.Second); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Fatalf("dial after Close: %v", err)
	}
	if _, err := c.Write([]byte("more")); err != nil {
		t.Fatalf("a connection ended with its listener: %v", err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(c); err != nil || string(rest) != "more" {
		t.Fatalf("read %q, %v", rest, err)
	}
}

// tcp hands a socket over to net.
func tcp(t *testing.T, s *bare.Socket) *net.TCPConn {
	t.Helper()
	c, err := s.Stream().Conn()
	if err != nil {
		t.Error(err)
	}
	return c.(*net.TCPConn)
}

func echo(c *net.TCPConn) {
	defer c.Close()
	if _, err := io.Copy(c, c); err != nil {
		return
	}
}

func TestBindSaysWhatAndWhere(t *testing.T) {
	s, err := Bind(context.Background(), "127.0.0.1:0", Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	_, err = Bind(context.Background(), s.Addr().String(), Options{})
	if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), s.Addr().String()) {
		t.Fatalf("second bind: %v", err)
	}
}

func TestRefuseTCPIsReset(t *testing.T) {
	s, err := Bind(context.Background(), "127.0.0.1:0", Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	connected := make(chan struct{})
	s.Serve(quiet(), func(c *bare.Socket, _ bare.Peer) {
		<-connected // a reset while the client connects would fail that instead
		client, err := Handshake(t.Context(), speaking(t, KindTCP), NewConn(c), HandshakeOptions{})
		if err != nil {
			t.Error(err)
			return
		}
		client.Refuse(t.Context(), &tunnel.DialError{})
	}, func() {})
	c := dial(t, s.Addr())
	close(connected)
	n, err := c.Read(make([]byte, 1))
	if n != 0 || !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("read %d, %v; want a reset", n, err)
	}
}

// TestAcceptSurvivesDescriptorExhaustion takes every descriptor away, sees the
// accept fail, gives them back and sees the waiting client served.
func TestAcceptSurvivesDescriptorExhaustion(t *testing.T) {
	s, err := Bind(context.Background(), "127.0.0.1:0", Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	failed := make(chan struct{}, 1)
	log := slog.New(slog.NewTextHandler(notify{failed}, nil))

	c := dial(t, s.Addr())
	giveBack := leaveDescriptors(t, 0)
	s.Serve(log, func(s *bare.Socket, _ bare.Peer) { go echo(tcp(t, s)) }, func() {})
	select {
	case <-failed:
	case <-time.After(10 * time.Second):
		t.Error("accept did not fail")
	}
	giveBack()
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(c); err != nil || string(b) != "x" {
		t.Fatalf("read %q, %v", b, err)
	}
}

// leaveDescriptors lets the process open n descriptors more, until the function
// that it returns is called.
func leaveDescriptors(t *testing.T, n uint64) func() {
	t.Helper()
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	lowest, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	limit := old
	limit.Cur = uint64(lowest.Fd()) + n
	if err := lowest.Close(); err != nil {
		t.Fatal(err)
	}
	set := func(to syscall.Rlimit) {
		t.Helper()
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &to); err != nil {
			t.Fatal(err)
		}
	}
	set(limit)
	return func() { set(old) }
}

// notify tells of the first write.
type notify struct{ ch chan struct{} }

func (n notify) Write(b []byte) (int, error) {
	select {
	case n.ch <- struct{}{}:
	default:
	}
	return len(b), nil
}
