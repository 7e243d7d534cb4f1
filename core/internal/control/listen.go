package control

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"
)

const (
	// tempPrefix and tempName make the place where a socket is bound: in a
	// private folder beside its own place, "/.c0123456789/s" at most.
	tempPrefix = ".c"
	tempName   = "s"
	tempLength = 1 + len(tempPrefix) + 10 + 1 + len(tempName)

	// maxConns bounds the connections to a socket.
	maxConns = 32

	// probeTimeout bounds a look at who serves a socket, and lockTimeout the wait for
	// others that look.
	probeTimeout = time.Second
	lockTimeout  = 2 * time.Second
)

// bind makes the control socket. Only this process's user can open it, from the first
// moment on: it is bound in a private folder, given its mode, and then renamed to its
// place. A socket that nobody serves is replaced; one that is in service, and a file
// that is not a socket, is an error. If several daemons try at once, one wins: the
// folder is locked meanwhile. A missing folder is made, for this user alone. Closing
// the listener removes the socket, unless it is another one by now.
func bind(address string) (*listener, error) {
	path, err := Path(address)
	if err != nil {
		return nil, err
	}
	ln, err := listen(path)
	if err != nil {
		return nil, fmt.Errorf("control socket %s: %w", path, err)
	}
	return ln, nil
}

func listen(path string) (_ *listener, err error) {
	dir := filepath.Dir(path)
	if len(dir)+tempLength > maxPath {
		return nil, fmt.Errorf("the path of its folder has %d bytes, and at most %d are allowed: choose a shorter control.address", len(dir), maxPath-tempLength)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	private, err := os.MkdirTemp(dir, tempPrefix)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(private)) }()
	temp := filepath.Join(private, tempName)
	socket, err := net.ListenUnix("unix", &net.UnixAddr{Name: temp, Net: "unix"})
	if err != nil {
		return nil, err
	}
	socket.SetUnlinkOnClose(false)
	own, err := place(temp, path)
	if err != nil {
		return nil, errors.Join(err, socket.Close())
	}
	return &listener{
		UnixListener: socket,
		path:         path,
		own:          own,
		slots:        make(chan struct{}, maxConns),
		closed:       make(chan struct{}),
	}, nil
}

// place gives the socket temp its mode and renames it to path.
func place(temp, path string) (own fs.FileInfo, err error) {
	if err := os.Chmod(temp, 0o600); err != nil {
		return nil, err
	}
	folder, err := lock(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, folder.Close()) }()
	stale, err := os.Lstat(path)
	if err == nil {
		err = unserved(path, stale)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err := os.Rename(temp, path); err != nil {
		return nil, err
	}
	return os.Lstat(path)
}

// lock locks a folder against others that place a socket in it; closing it unlocks it.
func lock(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(lockTimeout); ; time.Sleep(time.Millisecond) {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) || time.Now().After(deadline) {
			return nil, errors.Join(fmt.Errorf("lock its folder against other daemons: %w", err), f.Close())
		}
	}
}

// unserved returns nil if path is a socket that nobody serves; the error says what else
// it is, or who serves it.
func unserved(path string, info fs.FileInfo) error {
	if info.Mode().Type() != fs.ModeSocket {
		return errors.New("there is a file that is not a socket: remove it, or choose another control.address")
	}
	ctx, cancel := context.WithTimeout(context.Background(), probeTimeout)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	switch {
	case err == nil:
		_ = conn.Close()
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, fs.ErrNotExist):
		return nil
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("it belongs to user %s, who may still serve it: choose another control.address", owner(info))
	}
	const other = "another tunneld serves it%s: stop that one, or choose another control.address"
	if s, err := (&Client{path: path}).Status(ctx); err == nil {
		return fmt.Errorf(other, fmt.Sprintf(" (process %d, configuration %s)", s.PID, s.Config))
	}
	return fmt.Errorf(other, "")
}

// owner names the user to whom a file belongs.
func owner(info fs.FileInfo) string {
	sys, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return "unknown"
	}
	id := strconv.FormatUint(uint64(sys.Uid), 10)
	if u, err := user.LookupId(id); err == nil {
		return u.Username
	}
	return id
}

// listener is a socket that removes itself, and accepts maxConns connections at
// a time.
type listener struct {
	*net.UnixListener
	path   string
	own    fs.FileInfo
	slots  chan struct{}
	closed chan struct{}
	once   sync.Once
	err    error // of the close
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case l.slots <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	conn, err := l.AcceptUnix()
	if err != nil {
		<-l.slots
		return nil, err
	}
	return &slotted{UnixConn: conn, free: sync.OnceFunc(func() { <-l.slots })}, nil
}

// Addr implements net.Listener.
func (l *listener) Addr() net.Addr { return &net.UnixAddr{Name: l.path, Net: "unix"} }

// Close implements net.Listener. The socket goes before nobody serves it.
func (l *listener) Close() error {
	l.once.Do(func() {
		close(l.closed)
		if l.inPlace() {
			l.err = os.Remove(l.path)
		}
		l.err = errors.Join(l.err, l.UnixListener.Close())
	})
	return l.err
}

// inPlace says whether the socket is still where it was put.
func (l *listener) inPlace() bool {
	now, err := os.Lstat(l.path)
	return err == nil && os.SameFile(now, l.own)
}

// slotted is a connection that holds a slot until it is closed. The server
// wants its CloseWrite.
type slotted struct {
	*net.UnixConn
	free func()
}

// Close implements net.Conn.
func (c *slotted) Close() error {
	defer c.free()
	return c.UnixConn.Close()
}
