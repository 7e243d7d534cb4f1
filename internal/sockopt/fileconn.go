package sockopt

import (
	"errors"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// FileConn is net.FileConn for a socket whose options stay as they are: that one
// switches the keep-alive of a TCP socket on, with Go's own times, and Nagle's
// algorithm off. The connection is a duplicate: the caller closes f.
func FileConn(f *os.File) (net.Conn, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	var options []tcpOption
	if ctlErr := raw.Control(func(fd uintptr) { options, err = tcpOptions(int(fd)) }); ctlErr != nil {
		return nil, ctlErr
	}
	if err != nil {
		return nil, err
	}
	conn, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	if c, ok := conn.(*net.TCPConn); ok {
		if err := restore(c, options); err != nil {
			return nil, errors.Join(err, c.Close())
		}
	}
	return conn, nil
}

// tcpOption is an option of a TCP socket and its value.
type tcpOption struct{ level, name, value int }

// tcpOptions reads what net.FileConn sets anew.
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
