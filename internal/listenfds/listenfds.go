// Package listenfds finds the listening sockets that the process inherited, by name, as
// systemd passes them (sd_listen_fds(3)). It binds nothing itself.
package listenfds

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// The variables of the environment, and the first descriptor.
const (
	envPID   = "LISTEN_PID"
	envCount = "LISTEN_FDS"
	envNames = "LISTEN_FDNAMES"

	first = 3
)

// unnamed is what systemd calls a descriptor without a name.
const unnamed = "unknown"

// maxSockets bounds what the environment can say.
const maxSockets = 10_000

// Table is the sockets by name. Nil, and the zero value, have none. It does not change,
// and keeps the sockets for the life of the process: users of a socket get a duplicate.
type Table struct{ byName map[string][]Socket }

// Socket is a listening socket, or the reason why the descriptor that was passed is
// not one.
type Socket struct {
	// File stays the table's.
	File *os.File
	Addr net.Addr // a *net.TCPAddr or *net.UnixAddr
	Err  error
}

// Take takes the sockets of this process's environment, and the variables out of it, so
// that no child believes they are its own; nor does it inherit the descriptors. It is to
// be called once, before other descriptors are opened or processes started. Where the
// variables are not meant for this process there are none.
func Take() (*Table, error) {
	pid, count, names := os.Getenv(envPID), os.Getenv(envCount), os.Getenv(envNames)
	err := errors.Join(os.Unsetenv(envPID), os.Unsetenv(envCount), os.Unsetenv(envNames))
	if err != nil {
		return nil, err
	}
	if pid != strconv.Itoa(os.Getpid()) || count == "" {
		return &Table{}, nil
	}
	n, err := strconv.Atoi(count)
	if err != nil || n < 0 || n > maxSockets {
		return nil, fmt.Errorf("%s is %q, which is not a number of descriptors", envCount, count)
	}
	var named []string
	if names != "" {
		named = strings.Split(names, ":")
	}
	if len(named) > 0 && len(named) != n {
		return nil, fmt.Errorf("%s has %d names for the %d descriptors of %s", envNames, len(named), n, envCount)
	}
	t := &Table{byName: map[string][]Socket{}}
	for i := range n {
		name := unnamed
		if len(named) > 0 {
			name = named[i]
		}
		syscall.CloseOnExec(first + i)
		t.byName[name] = append(t.byName[name], inspect(first+i, name))
	}
	return t, nil
}

// inspect says what a descriptor is.
func inspect(fd int, name string) Socket {
	s := Socket{File: os.NewFile(uintptr(fd), name)}
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		s.Err = fmt.Errorf("descriptor %d is not a socket: %w", fd, err)
		return s
	}
	address, err := unix.Getsockname(fd)
	if err != nil {
		s.Err = fmt.Errorf("descriptor %d: %w", fd, err)
		return s
	}
	switch a := address.(type) {
	case *unix.SockaddrInet4:
		s.Addr = &net.TCPAddr{IP: a.Addr[:], Port: a.Port}
	case *unix.SockaddrInet6:
		tcp := &net.TCPAddr{IP: a.Addr[:], Port: a.Port}
		if a.ZoneId != 0 {
			tcp.Zone = strconv.FormatUint(uint64(a.ZoneId), 10)
		}
		s.Addr = tcp
	case *unix.SockaddrUnix:
		// Others have no permissions: one without a path, or with the name of an
		// abstract one, which begins with @ here.
		if filepath.IsAbs(a.Name) {
			s.Addr = &net.UnixAddr{Name: a.Name, Net: "unix"}
		}
	}
	listening, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	switch {
	case kind != unix.SOCK_STREAM || s.Addr == nil:
		s.Err = fmt.Errorf("descriptor %d is neither a TCP socket nor a unix stream socket at an absolute path", fd)
	case err != nil:
		s.Err = fmt.Errorf("descriptor %d: %w", fd, err)
	case listening == 0:
		s.Err = fmt.Errorf("descriptor %d does not listen", fd)
	}
	return s
}

// Names are those that have a socket, sorted.
func (t *Table) Names() []string {
	if t == nil {
		return nil
	}
	return slices.Sorted(maps.Keys(t.byName))
}

// Sockets returns those of a name; several where several were passed under it.
func (t *Table) Sockets(name string) []Socket {
	if t == nil {
		return nil
	}
	return t.byName[name]
}
