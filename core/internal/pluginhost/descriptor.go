package pluginhost

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// errGone is a descriptor whose connection ended before it was handed over.
var errGone = errors.New("the connection that it handed over had ended already")

// inspect says why a descriptor that a plugin passed is not what path promises: a
// connected stream socket, TCP or unix, of the unix family on the relay path.
func inspect(fd int, path pluginv1.DataPath) error {
	typ, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return errors.New("the descriptor that it handed over is not a socket")
	}
	if typ != unix.SOCK_STREAM {
		return errors.New("the descriptor that it handed over is not a stream socket")
	}
	local, err := syscall.Getsockname(fd)
	if err != nil {
		return fmt.Errorf("the descriptor that it handed over: %w", os.NewSyscallError("getsockname", err))
	}
	switch local.(type) {
	case *syscall.SockaddrUnix:
	case *syscall.SockaddrInet4, *syscall.SockaddrInet6:
		if path == pluginv1.DataPath_DATA_PATH_RELAY {
			return errors.New("the descriptor of a relay is a TCP socket, not one end of a socketpair")
		}
	default:
		return errors.New("the descriptor that it handed over is neither a TCP nor a unix socket")
	}
	if _, err := syscall.Getpeername(fd); err == nil {
		return nil
	}
	if listening, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err == nil && listening != 0 {
		return errors.New("the descriptor that it handed over is a listening socket")
	}
	return errGone
}
