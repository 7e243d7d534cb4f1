package pluginhost

import (
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"

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
	var options []tcpOption
	if ctlErr := raw.Control(func(fd uintptr) {
		if err = inspect(int(fd), path); err == nil {
			options, err = tcpOptions(int(fd))
		}
	}); ctlErr != nil {
		return nil, ctlErr
	}
	if err != nil {
		return nil, err
	}
	conn, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	switch c := conn.(type) {
	case *net.UnixConn:
		return c, nil
	case *net.TCPConn:
		if err := restore(c, options); err != nil {
			return nil, errors.Join(err, c.Close())
		}
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

// tcpOption is an option of a TCP socket and its value.
type tcpOption struct{ level, name, value int }

// tcpOptions reads what net.FileConn sets anew: it switches the keep-alive on,
// with Go's own times, and Nagle's algorithm off, and both are the plugin's to
// decide.
func tcpOptions(fd int) ([]tcpOption, error) {
	options := []tcpOption{
		{level: unix.SOL_SOCKET, name: unix.SO_KEEPALIVE},
		{level: unix.IPPROTO_TCP, name: unix.TCP_NODELAY},
		{level: unix.IPPROTO_TCP, name: tcpKeepIdle},
		{level: unix.IPPROTO_TCP, name: unix.TCP_KEEPINTVL},
		{level: unix.IPPROTO_TCP, name: unix.TCP_KEEPCNT},
	}
	if local, err := unix.Getsockname(fd); err != nil {
		return nil, os.NewSyscallError("getsockname", err)
	} else if _, ok := local.(*unix.SockaddrUnix); ok {
		return nil, nil
	}
	for i, o := range options {
		v, err := unix.GetsockoptInt(fd, o.level, o.name)
		if err != nil {
			return nil, os.NewSyscallError("getsockopt", err)
		}
		options[i].value = v
	}
	return options, nil
}

func restore(c *net.TCPConn, options []tcpOption) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	ctlErr := raw.Control(func(fd uintptr) {
		for _, o := range options {
			if e := unix.SetsockoptInt(int(fd), o.level, o.name, o.value); e != nil {
				err = os.NewSyscallError("setsockopt", e)
				return
			}
		}
	})
	return errors.Join(ctlErr, err)
}
