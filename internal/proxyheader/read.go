package proxyheader

import (
	"errors"
	"io"
	"syscall"

	"github.com/tunneld/tunneld/internal/bare"
)

// window is how much of a socket's first bytes is looked at, unless the header is known to
// be longer: that of most load balancers is shorter.
const window = 256

// Read reads the header with which the peer of c, a stream socket, begins, and leaves what
// follows it in the socket. It waits as a read of c does, within c's deadline. The errors
// are io.EOF and ECONNRESET only if the peer has left before it has sent a byte, and otherwise
// io.ErrUnexpectedEOF, *AbsentError and *MalformedError, and those of the socket; what was
// taken from it then is unspecified. It holds window bytes, or 16 and maxBlock if
// the header claims to be longer.
func Read(c syscall.Conn) (Header, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return Header{}, err
	}
	r := reading{read: make([]byte, 0, window)}
	waitErr := raw.Read(func(fd uintptr) bool {
		err = r.take(fd)
		return !errors.Is(err, syscall.EAGAIN)
	})
	switch {
	case waitErr != nil:
		return Header{}, waitErr
	case len(r.read) > 0 && (errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET)):
		return Header{}, io.ErrUnexpectedEOF
	case err != nil:
		return Header{}, err
	}
	return parse(r.read)
}

// reading is a header that comes in pieces.
type reading struct {
	read []byte // what was taken from the socket, all of it the header's
	size int    // of the header; 0: not known yet
}

// take takes the rest of the header from the socket, or what is there of it: then the error
// is EAGAIN. What may be something else's is only looked at.
func (r *reading) take(fd uintptr) error {
	for r.size == 0 || len(r.read) < r.size {
		room := r.read[len(r.read):min(cap(r.read), max(r.size, window))]
		n, err := bare.Peek(fd, room)
		if err != nil {
			return err
		}
		if r.size, err = end(r.read[:len(r.read)+n]); err != nil {
			return err
		}
		if r.size > 0 {
			n = min(n, r.size-len(r.read))
		}
		if n, err = bare.Read(fd, room[:n]); err != nil {
			return err
		}
		r.read = r.read[:len(r.read)+n]
		if r.size > cap(r.read) {
			r.read = append(make([]byte, 0, r.size), r.read...)
		}
	}
	return nil
}
