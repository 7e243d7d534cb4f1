// Package unixsock binds unix sockets to paths. A socket is never open to more users than
// it is meant for, takes the place only of one that nobody serves, and removes nothing but
// itself. The package accepts no connections.
package unixsock

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

	"github.com/tunneld/tunneld/internal/bare"
)

// MaxPath is the longest path of a unix socket here, in bytes: 107 on Linux.
const MaxPath = len(syscall.RawSockaddrUnix{}.Path) - 1

const (
	// probeTimeout bounds a look at who serves a socket, and lockTimeout the wait for
	// others that look.
	probeTimeout = time.Second
	lockTimeout  = 2 * time.Second
)

// Access says who may connect to a socket.
type Access struct {
	Mode fs.FileMode // the permissions alone; who may write may connect
	// UID and GID are whose it is; -1: who made it.
	UID, GID int
}

// Error is why there is no socket at a path. It says what is in the way and, in Hint, what
// to do.
type Error struct {
	Path, What, Hint string
	// Served says that somebody serves a socket there.
	Served bool
	Err    error // may be nil
}

// Error says what is in the way, without the path.
func (e *Error) Error() string {
	if e.Err != nil {
		return e.What + ": " + e.Err.Error()
	}
	return e.What
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Place is the place of a socket in the file system. Its methods may be called by several
// goroutines.
type Place struct {
	path string
	made fs.FileInfo

	mu     sync.Mutex
	access Access
}

// Listen binds a socket to an absolute path and listens. Until its Access is set nobody but
// root can connect, whatever the umask is. A socket that nobody serves is replaced; one
// that is served, and what is no socket, is an error, as whatever else goes wrong is an
// *Error. Of several processes that try at once one wins: the folder, which has to be
// there, is locked meanwhile. The close of the listener leaves the path alone; that is
// the Place's to remove.
func Listen(ctx context.Context, path string, a Access) (_ *net.UnixListener, _ *Place, err error) {
	if len(path) > MaxPath {
		return nil, nil, tooLong(path, "the path", len(path), MaxPath)
	}
	folder, err := lock(path)
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, folder.Close()) }() // which unlocks it
	if err := clearStale(path); err != nil {
		return nil, nil, err
	}
	ln, err := bindClosed(ctx, path)
	if err != nil {
		return nil, nil, explain(path, err)
	}
	ln.SetUnlinkOnClose(false)
	p := &Place{path: path, access: Access{UID: -1, GID: -1}}
	if p.made, err = os.Lstat(path); err != nil {
		return nil, nil, errors.Join(explain(path, err), ln.Close())
	}
	if err := p.Set(a); err != nil {
		return nil, nil, errors.Join(err, p.Remove(), ln.Close())
	}
	return ln, p, nil
}

func tooLong(path, what string, is, most int) *Error {
	return &Error{Path: path, What: fmt.Sprintf("%s has %d bytes, and at most %d are allowed", what, is, most), Hint: "choose a shorter path"}
}

// explain says what an error of the system means for a socket at path.
func explain(path string, err error) *Error {
	e := &Error{Path: path, What: "it cannot be made", Hint: "check the path", Err: err}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		e.Err = errno
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		e.What, e.Hint, e.Err = fmt.Sprintf("there is no folder %s", filepath.Dir(path)), "make it before tunneld starts, under systemd by RuntimeDirectory", nil
	case errors.Is(err, fs.ErrPermission):
		e.What, e.Hint = fmt.Sprintf("the user %s may not make it", username(os.Geteuid())), fmt.Sprintf("give that user the right to write to %s", filepath.Dir(path))
	case errors.Is(err, syscall.EROFS):
		e.Hint = "choose a folder that can be written to; under systemd, name it in RuntimeDirectory or ReadWritePaths"
	case errors.Is(err, syscall.EADDRINUSE):
		e.What, e.Hint, e.Err = "another process has just taken the path", "see which one does, or try again", nil
	}
	return e
}

// lock locks the folder of path against others that place a socket in it; closing it
// unlocks it.
func lock(path string) (*os.File, error) {
	f, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, explain(path, err)
	}
	for deadline := time.Now().Add(lockTimeout); ; time.Sleep(time.Millisecond) {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) || time.Now().After(deadline) {
			locked := &Error{Path: path, What: "its folder cannot be locked against others that make sockets there", Hint: "see which process keeps it locked", Err: err}
			return nil, errors.Join(locked, f.Close())
		}
	}
}

// clearStale removes a socket that nobody serves.
func clearStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		if err := unserved(path, info); err != nil {
			return err
		}
		err = os.Remove(path)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return explain(path, err)
	}
	return nil
}

// unserved returns nil if path is a socket that nobody serves; the error says what else
// it is, or who serves it.
func unserved(path string, info fs.FileInfo) error {
	if info.Mode().Type() != fs.ModeSocket {
		return &Error{Path: path, What: "there is a file that is not a socket", Hint: "remove it"}
	}
	ctx, cancel := context.WithTimeout(context.Background(), probeTimeout)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
	switch {
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, fs.ErrNotExist):
		return nil
	case errors.Is(err, fs.ErrPermission):
		return &Error{Path: path, What: fmt.Sprintf("it belongs to user %s, who may still serve it", Owner(info)), Hint: "remove it if nobody does"}
	case errors.Is(err, syscall.EPROTOTYPE):
		return &Error{Path: path, What: "there is a socket of another type, which a process has bound", Hint: "stop that process", Served: true}
	}
	served := &Error{Path: path, What: "another process serves it", Hint: "stop that process", Served: true}
	if err != nil {
		return served
	}
	defer func() { _ = conn.Close() }()
	switch pid := server(conn.(*net.UnixConn)); pid {
	case 0:
	case os.Getpid():
		served.What, served.Hint = "this tunneld serves it itself, as another of its sockets", "see where else the path is written, links among its folders included"
	default:
		served.What = fmt.Sprintf("process %d serves it", pid)
	}
	return served
}

// server is the process that listens at the other end; 0: that is not known.
func server(conn *net.UnixConn) (pid int) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0
	}
	_ = raw.Control(func(fd uintptr) { pid = int(bare.ProcessOf(int(fd)).PID) }) // an error: it is not known
	return pid
}

// Owner names the user to whom a file belongs.
func Owner(info fs.FileInfo) string {
	sys, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return "unknown"
	}
	return username(int(sys.Uid))
}

func username(uid int) string {
	id := strconv.Itoa(uid)
	if u, err := user.LookupId(id); err == nil {
		return u.Username
	}
	return id
}

// Held says whether the socket is still where it was put.
func (p *Place) Held() bool {
	now, err := os.Lstat(p.path)
	return err == nil && os.SameFile(now, p.made)
}

// Remove removes the socket, unless something else is in its place by now.
func (p *Place) Remove() error {
	if !p.Held() {
		return nil
	}
	return os.Remove(p.path)
}

// Access is what was set last.
func (p *Place) Access() Access {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.access
}

// Set says who may connect from now on. Meanwhile nobody may who may neither before nor
// then. After an *Error everything is as it was. It does nothing to what is not the socket
// any more.
func (p *Place) Set(a Access) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if a == p.access || !p.Held() {
		p.access = a
		return nil
	}
	if err := p.change(a); err != nil {
		return err
	}
	p.access = a
	return nil
}

func (p *Place) change(a Access) error {
	before := p.access.Mode
	if both := before & a.Mode; both != before {
		if err := os.Chmod(p.path, both); err != nil {
			return explain(p.path, err)
		}
	}
	uid, gid := p.ids(a)
	if wasUID, wasGID := p.ids(p.access); uid != wasUID || gid != wasGID {
		if err := os.Lchown(p.path, uid, gid); err != nil {
			gift := &Error{Path: p.path, What: "it cannot be given to that user and group", Hint: "only root can give a socket to another user, and others only to groups that they are in", Err: errors.Unwrap(err)}
			return errors.Join(gift, os.Chmod(p.path, before))
		}
	}
	if err := os.Chmod(p.path, a.Mode); err != nil {
		return explain(p.path, err)
	}
	return nil
}

// ids are whose the socket is then.
func (p *Place) ids(a Access) (uid, gid int) {
	uid, gid = a.UID, a.GID
	made, ok := p.made.Sys().(*syscall.Stat_t)
	if ok && uid == -1 {
		uid = int(made.Uid)
	}
	if ok && gid == -1 {
		gid = int(made.Gid)
	}
	return uid, gid
}
