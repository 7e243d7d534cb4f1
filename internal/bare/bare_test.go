package bare

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/sockopt"
)

func listen(t *testing.T) (*Listener, netip.AddrPort) {
	t.Helper()
	l, err := Listen(t.Context(), "127.0.0.1:0", sockopt.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l, l.Addr().(*net.TCPAddr).AddrPort()
}

// pair returns both ends of a connection, dialed and accepted.
func pair(t *testing.T) (dialed, accepted *Socket) {
	t.Helper()
	l, addr := listen(t)
	dialed, err := Dialer{Options: sockopt.Options{Nodelay: true}}.Dial(t.Context(), addr)
	if err != nil {
		t.Fatal(err)
	}
	accepted, peer, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if from := peer.Addr; !from.Addr().IsLoopback() || from.Port() == 0 || peer.String() != from.String() {
		t.Errorf("peer %s", peer)
	}
	return dialed, accepted
}

func conn(t *testing.T, s *Socket) *net.TCPConn {
	t.Helper()
	h, err := s.Stream().Conn()
	if err != nil {
		t.Fatal(err)
	}
	c := h.(*net.TCPConn)
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	return c
}

func TestConn(t *testing.T) {
	a, b := pair(t)
	near, far := conn(t, a), conn(t, b)
	if _, err := near.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if err := near.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(far); string(got) != "hello" || err != nil {
		t.Errorf("read %q, %v", got, err)
	}
}

func TestResetAndClose(t *testing.T) {
	a, b := pair(t)
	b.Reset()
	if _, err := conn(t, a).Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("after a reset: %v", err)
	}
	a, b = pair(t)
	b.Close()
	if _, err := conn(t, a).Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("after a close: %v", err)
	}
}

// TestStream talks on a socket that net does not have.
func TestStream(t *testing.T) {
	a, b := pair(t)
	near, far := conn(t, a), b.Stream()
	if _, err := near.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 5)
	if _, err := io.ReadFull(far, got); err != nil || string(got) != "hello" {
		t.Fatalf("read %q, %v", got, err)
	}
	if err := far.SetDeadline(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if _, err := far.Read(got); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after its deadline: %v", err)
	}
	if err := far.SetDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	if _, err := far.Write([]byte("back")); err != nil {
		t.Fatal(err)
	}
	if err := far.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(near); err != nil || string(got) != "back" {
		t.Errorf("read %q, %v", got, err)
	}
	if err := near.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if n, err := far.Read(got); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("read %d, %v; want the end of file", n, err)
	}
	if err := far.Close(); err != nil {
		t.Error(err)
	}
	a, b = pair(t)
	b.Stream().Reset()
	if _, err := conn(t, a).Read(got); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("after a reset: %v", err)
	}
}

// TestCloseEndsAccept, also one that is about to wait.
func TestCloseEndsAccept(t *testing.T) {
	l, _ := listen(t)
	ended := make(chan error)
	go func() {
		_, _, err := l.Accept()
		ended <- err
	}()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept: %v", err)
	}
	if _, _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept after close: %v", err)
	}
}

func TestDialErrors(t *testing.T) {
	l, addr := listen(t)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	var op *net.OpError
	_, err := Dialer{}.Dial(t.Context(), addr)
	if !errors.Is(err, syscall.ECONNREFUSED) || !errors.As(err, &op) || op.Error() != "dial tcp "+addr.String()+": connect: connection refused" {
		t.Errorf("a port that nobody listens on: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := new(Dialer).Dial(ctx, addr); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
}

// TestDialWaits fills the queue of a listener that accepts nothing, so that
// connecting takes a wait, and ends it by the deadline.
func TestDialWaits(t *testing.T) {
	l, addr := listen(t)
	if err := l.Control(func(fd uintptr) { _ = syscall.Listen(int(fd), 0) }); err != nil {
		t.Fatal(err)
	}
	for range 64 {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		s, err := Dialer{}.Dial(ctx, addr)
		cancel()
		if err == nil {
			defer s.Close()
			continue
		}
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a dial that nobody answers: %v", err)
		}
		return
	}
	t.Error("every dial was answered")
}

func TestFreeOfTheSystem(t *testing.T) {
	before := descriptors(t)
	for range 50 {
		a, b := pair(t)
		a.Close()
		b.Reset()
	}
	// The listeners are closed at the test's end.
	if after := descriptors(t); after > before+50 {
		t.Errorf("%d descriptors, %d before", after, before)
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/dev/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
