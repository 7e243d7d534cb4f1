package splice

import (
	"errors"
	"io"
	"net"
	"syscall"

	"github.com/tunneld/tunneld/internal/bare"
)

// waiter is a connection that is not a socket and can be waited for without a buffer, as
// TLS of this project can. ReadNow's error is syscall.EAGAIN where it would wait.
type waiter interface {
	Bulk()
	ReadNow([]byte) (int, error)
	AwaitData() error
}

// source is a connection as the portable pump reads it: while it is silent it has no
// buffer, if that is possible.
type source struct {
	conn   net.Conn
	waiter waiter          // nil: it is none
	raw    syscall.RawConn // nil: it is no socket
	read   func(uintptr) bool
	dry    bool // the waiter's last read said that there is no more

	// Of the read under way.
	most int
	buf  *[bufferSize]byte
	n    int
	err  error
}

func newSource(c net.Conn) *source {
	s := &source{conn: c}
	s.read = s.readSocket
	switch c := c.(type) {
	case waiter:
		c.Bulk()
		s.waiter = c
	case syscall.Conn:
		s.raw, _ = c.SyscallConn() // an error: it is closed, and a read says so
	}
	return s
}

// next waits for bytes and returns at most that many, with the buffer that they are in,
// which goes back to the pool: nil where there are none. An end is io.EOF. Bytes may come
// with an error.
func (s *source) next(most int) (buf *[bufferSize]byte, n int, err error) {
	s.buf, s.n, s.err, s.most = nil, 0, nil, most
	switch {
	case s.waiter != nil:
		s.readWaiter()
	case s.raw != nil:
		if err := s.raw.Read(s.read); err != nil {
			s.err = err
		}
	default:
		s.buf = buffers.get()
		s.n, s.err = s.conn.Read(s.buf[:s.most])
	}
	if s.n == 0 && s.buf != nil {
		buffers.put(s.buf)
		s.buf = nil
	}
	return s.buf, s.n, s.err
}

// readSocket is for RawConn.Read. False: there is nothing yet.
func (s *source) readSocket(fd uintptr) bool {
	s.buf = buffers.get()
	s.n, s.err = bare.Read(fd, s.buf[:s.most])
	switch {
	case errors.Is(s.err, syscall.EAGAIN):
		buffers.put(s.buf)
		s.buf, s.err = nil, nil
		return false
	case s.err != nil && s.err != io.EOF:
		s.err = &net.OpError{Op: "read", Net: s.conn.LocalAddr().Network(), Source: s.conn.LocalAddr(), Addr: s.conn.RemoteAddr(), Err: s.err}
	}
	return true
}

// readWaiter reads all that is there, up to most.
func (s *source) readWaiter() {
	for {
		if s.dry {
			if s.err = s.waiter.AwaitData(); s.err != nil {
				return
			}
			s.dry = false
		}
		if s.buf == nil {
			s.buf = buffers.get()
		}
		for s.n < s.most && s.err == nil {
			var n int
			n, s.err = s.waiter.ReadNow(s.buf[s.n:s.most])
			s.n += n
		}
		if !errors.Is(s.err, syscall.EAGAIN) {
			return
		}
		s.dry, s.err = true, nil
		if s.n > 0 {
			return
		}
		buffers.put(s.buf)
		s.buf = nil
	}
}
