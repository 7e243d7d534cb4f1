package serve

import (
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"

	"github.com/tunneld/tunneld/internal/bare"
)

// Buffers of relays. An idle tunnel holds a small one or none: ten thousand
// that wait must not hold a gigabyte.
const (
	smallBuffer = 4 << 10
	largeBuffer = 64 << 10
)

var (
	smallPool = sync.Pool{New: func() any { b := make([]byte, smallBuffer); return &b }}
	largePool = sync.Pool{New: func() any { b := make([]byte, largeBuffer); return &b }}
)

// adaptiveSize picks the buffer for the next read of a stream that can only be
// waited for by reading it: large while reads fill the small one.
type adaptiveSize struct {
	large bool
	short int // reads in a row that a small buffer would have held
}

func (a *adaptiveSize) buffer() *[]byte {
	if a.large {
		return largePool.Get().(*[]byte)
	}
	return smallPool.Get().(*[]byte)
}

func (a *adaptiveSize) giveBack(b *[]byte) {
	if len(*b) == largeBuffer {
		largePool.Put(b)
		return
	}
	smallPool.Put(b)
}

// saw notes the length of a read.
func (a *adaptiveSize) saw(n int) {
	switch {
	case n >= smallBuffer:
		a.large, a.short = true, 0
	case a.large:
		if a.short++; a.short >= 8 {
			a.large, a.short = false, 0
		}
	}
}

// waitingReader reads a socket and holds no buffer while it waits.
type waitingReader struct {
	raw syscall.RawConn
	// delivering is true while bytes are passed on: an error of next is then
	// the receiver's.
	delivering bool
}

func newWaitingReader(c *net.UnixConn) (*waitingReader, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("the client's side: %w", err)
	}
	return &waitingReader{raw: raw}, nil
}

// next waits for bytes and gives them to deliver, which does not keep them. It
// returns io.EOF at the end of file.
func (w *waitingReader) next(deliver func([]byte) error) error {
	w.delivering = false
	var buf *[]byte
	defer func() {
		if buf != nil {
			largePool.Put(buf)
		}
	}()
	var n int
	var readErr error
	err := w.raw.Read(func(fd uintptr) bool {
		buf = largePool.Get().(*[]byte)
		n, readErr = bare.Read(fd, *buf)
		if readErr == syscall.EAGAIN {
			largePool.Put(buf)
			buf = nil
			return false
		}
		return true
	})
	switch {
	case err != nil:
		return fmt.Errorf("the client's side: %w", err)
	case readErr == io.EOF:
		return io.EOF
	case readErr != nil:
		return fmt.Errorf("the client's side: read: %w", readErr)
	}
	w.delivering = true
	return deliver((*buf)[:n])
}
