package unixsock

import (
	"context"
	"errors"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// bindClosed binds and listens at a path that is free, with no permissions for anybody. The
// mode of a socket's descriptor is what bind gives to the file (unix_bind in Linux), less
// the umask, which all threads of a process share.
func bindClosed(ctx context.Context, path string) (*net.UnixListener, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		ctlErr := c.Control(func(fd uintptr) { err = os.NewSyscallError("fchmod", unix.Fchmod(int(fd), 0)) })
		return errors.Join(ctlErr, err)
	}}
	ln, err := lc.Listen(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	return ln.(*net.UnixListener), nil
}
