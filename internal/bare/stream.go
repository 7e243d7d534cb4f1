package bare

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/tunneld/tunneld/internal/sockopt"
)

// Stream is a socket in Go's poller, for a handshake before the socket belongs to a
// tunnel. Unlike a connection of net it takes no descriptor beside the socket's
// own, so that a client can be answered even if none are left. It ends by Conn,
// Reset or Close.
type Stream struct{ polled }

// polled is what an *os.File and a connection of net have in common.
type polled interface {
	io.ReadWriteCloser
	SetDeadline(time.Time) error
	SyscallConn() (syscall.RawConn, error)
}

// Stream hands the socket over. The Socket must not be used again.
func (s *Socket) Stream() Stream { return Stream{s.poll()} }

// HalfCloser is a connection of which one direction can end alone.
type HalfCloser interface {
	net.Conn
	CloseWrite() error
}

// Conn hands the socket over to net, as a *net.TCPConn or *net.UnixConn. The Stream must
// not be used again, but for an error, after which it is as it was.
func (s Stream) Conn() (HalfCloser, error) {
	f, ok := s.polled.(*os.File)
	if !ok {
		return halfCloser(s.polled)
	}
	c, err := sockopt.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("hand socket over: %w", err)
	}
	h, err := halfCloser(c)
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	_ = f.Close() // h has a duplicate
	return h, nil
}

func halfCloser(c any) (HalfCloser, error) {
	if h, ok := c.(HalfCloser); ok {
		return h, nil
	}
	return nil, fmt.Errorf("hand socket over: it is a %T", c)
}

// CloseWrite ends what the peer reads, once it has read all.
func (s Stream) CloseWrite() error {
	return s.control(func(fd int) error { return syscall.Shutdown(fd, syscall.SHUT_WR) })
}

// Reset closes the socket so that its peer is reset.
func (s Stream) Reset() {
	// Both fail only on a connection that is gone already.
	_ = s.control(func(fd int) error {
		return syscall.SetsockoptLinger(fd, syscall.SOL_SOCKET, syscall.SO_LINGER, &syscall.Linger{Onoff: 1})
	})
	_ = s.Close()
}

func (s Stream) control(f func(fd int) error) error {
	raw, err := s.SyscallConn()
	if err != nil {
		return err
	}
	ctlErr := raw.Control(func(fd uintptr) { err = f(int(fd)) })
	return errors.Join(ctlErr, err)
}
