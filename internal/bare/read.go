package bare

import (
	"errors"
	"io"
	"syscall"
)

// Read reads from a descriptor, for the function of a RawConn's Read: a call that was
// interrupted goes on, the end is io.EOF, and syscall.EAGAIN says that there is nothing
// yet.
func Read(fd uintptr, b []byte) (int, error) {
	for {
		switch n, err := syscall.Read(int(fd), b); {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return 0, err
		case n == 0 && len(b) > 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}

// Peek is Read that leaves in a stream socket what it returns, for the next one.
func Peek(fd uintptr, b []byte) (int, error) {
	for {
		switch n, _, err := syscall.Recvfrom(int(fd), b, syscall.MSG_PEEK); {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return 0, err
		case n == 0 && len(b) > 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}
