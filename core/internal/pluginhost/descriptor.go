package pluginhost

import (
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"

	"github.com/tunneld/tunneld/internal/sockopt"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// errGone is a descriptor whose connection ended before it was handed over.
var errGone = errors.New("the connection that it handed over had ended already")

// adopt turns a descriptor that a plugin passed into a connection, if it is
// what path promises: a connected stream socket, of the unix family on the
// relay path. The connection is a duplicate: the caller closes f.
func adopt(f *os.File, path pluginv1.DataPath) (net.Conn, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	if ctlErr := raw.Control(func(fd uintptr) { err = inspect(int(fd), path) }); ctlErr != nil {
		return nil, ctlErr
	}
	if err != nil {
		return nil, err
	}
	conn, err := sockopt.FileConn(f)
	if err != nil {
		return nil, err
	}
	switch c := conn.(type) {
	case *net.UnixConn, *net.TCPConn:
		return c, nil
	}
	return nil, errors.Join(fmt.Errorf("a %s socket, not TCP or unix", conn.LocalAddr().Network()), conn.Close())
}

// inspect says what is wrong with a descriptor.
func inspect(fd int, path pluginv1.DataPath) error {
	typ, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return errors.New("the descriptor that it handed over is not a socket")
	}
	if typ != unix.SOCK_STREAM {
		return errors.New("the descriptor that it handed over is not a stream socket")
	}
	local, err := unix.Getsockname(fd)
	if err != nil {
		return fmt.Errorf("the descriptor that it handed over: %w", os.NewSyscallError("getsockname", err))
	}
	switch local.(type) {
	case *unix.SockaddrUnix:
	case *unix.SockaddrInet4, *unix.SockaddrInet6:
		if path == pluginv1.DataPath_DATA_PATH_RELAY {
			return errors.New("the descriptor of a relay is a TCP socket, not one end of a socketpair")
		}
	default:
		return errors.New("the descriptor that it handed over is neither a TCP nor a unix socket")
	}
	if listening, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err == nil && listening != 0 {
		return errors.New("the descriptor that it handed over is a listening socket")
	}
	if _, err := unix.Getpeername(fd); err != nil {
		return errGone
	}
	return nil
}
