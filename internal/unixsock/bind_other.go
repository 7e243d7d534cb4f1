//go:build !linux

package unixsock

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
)

// tempPrefix and tempName make the place where a socket is bound: in a folder that only
// this user can enter, beside its own place, "/.c0123456789/s" at most.
const (
	tempPrefix = ".c"
	tempName   = "s"
	tempLength = 1 + len(tempPrefix) + 10 + 1 + len(tempName)
)

// bindClosed binds and listens at a path that is free, with no permissions for anybody. This
// system gives a socket all permissions but those of the umask, which all threads of a
// process share; so the socket is bound in a private folder, and then moved.
func bindClosed(ctx context.Context, path string) (_ *net.UnixListener, err error) {
	dir := filepath.Dir(path)
	if length := len(dir); length+tempLength > MaxPath {
		return nil, tooLong(path, "the path of its folder", length, MaxPath-tempLength)
	}
	private, err := os.MkdirTemp(dir, tempPrefix)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(private)) }()
	temp := filepath.Join(private, tempName)
	ln, err := new(net.ListenConfig).Listen(ctx, "unix", temp)
	if err != nil {
		return nil, err
	}
	ln.(*net.UnixListener).SetUnlinkOnClose(false) // the path is another by then
	if err = os.Chmod(temp, 0); err == nil {
		err = os.Rename(temp, path)
	}
	if err != nil {
		return nil, errors.Join(err, ln.Close())
	}
	return ln.(*net.UnixListener), nil
}
