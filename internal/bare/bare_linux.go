package bare

import (
	"cmp"
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tunneld/tunneld/internal/sockopt"
)

// Socket is a connected stream socket, TCP or unix, non-blocking, close-on-exec
// and fit for a tunnel (see Fit). Its owner ends it by exactly one of Conn,
// Stream, Take, Reset and Close. It is not safe for concurrent use.
type Socket struct {
	fd   int
	unix bool
}

// Adopt takes over fd, a connected stream socket that somebody else made; it is
// non-blocking and close-on-exec. On an error fd has been closed.
func Adopt(fd int) (*Socket, error) {
	Fit(fd)
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return nil, errors.Join(os.NewSyscallError("getsockopt", err), unix.Close(fd))
	}
	return &Socket{fd: fd, unix: domain == unix.AF_UNIX}, nil
}

// IsUnix says whether it is a unix socket.
func (s *Socket) IsUnix() bool { return s.unix }

// Fit makes a stream socket fit for a tunnel, whoever made it: urgent data stays in
// its place among the other bytes (RFC 6093, section 4); else the byte would be lost.
// An accepted TCP socket has it from the one that listens. It cannot fail.
func Fit(fd int) { _ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_OOBINLINE, 1) }

// Listener accepts bare sockets. Its methods may be called by several
// goroutines.
type Listener struct {
	file   *os.File // with the poller, which wakes Accept
	raw    syscall.RawConn
	addr   net.Addr
	unix   bool
	system sockopt.Options // what a new socket has
	closed atomic.Bool
}

// Listen binds address ("host:port") and listens. o is what the sockets that
// connect have; see SetOptions.
func Listen(ctx context.Context, address string, o sockopt.Options) (*Listener, error) {
	l := &Listener{}
	// Before it listens: from then on somebody may connect, and a socket keeps
	// what it began with.
	ln, err := listenTCP(ctx, address, func(_, _ string, c syscall.RawConn) error {
		return errors.Join(l.readSystem(c), c.Control(func(fd uintptr) { Fit(int(fd)) }), l.setOptions(c, o))
	})
	if err != nil {
		return nil, err
	}
	if err := l.take(ln); err != nil {
		return nil, err
	}
	return l, nil
}

// ListenUnix takes over a unix socket that listens, and that leaves its path alone when it
// is closed. On an error it has been closed.
func ListenUnix(ln *net.UnixListener) (*Listener, error) {
	l := &Listener{unix: true}
	if err := l.take(ln); err != nil {
		return nil, err
	}
	return l, nil
}

// take takes a listener over from net, which lets nobody wait for its own.
func (l *Listener) take(ln interface {
	net.Listener
	File() (*os.File, error)
}) (err error) {
	l.addr = ln.Addr()
	if l.file, err = ln.File(); err != nil {
		return errors.Join(err, ln.Close())
	}
	l.raw, err = l.file.SyscallConn()
	if err = errors.Join(err, ln.Close()); err != nil { // file is a duplicate
		return errors.Join(err, l.file.Close())
	}
	return nil
}

// Inherit takes a listening socket that another process has bound, a TCP or a unix one,
// as addr says. file stays its owner's, whom the closing of the Listener does not concern.
// o is as in Listen, for the sockets that connect from now on.
func Inherit(file *os.File, addr net.Addr, o sockopt.Options) (*Listener, error) {
	raw, err := file.SyscallConn()
	if err != nil {
		return nil, err
	}
	fd := -1
	var dupErr error
	err = raw.Control(func(of uintptr) {
		if fd, dupErr = unix.FcntlInt(of, unix.F_DUPFD_CLOEXEC, 0); dupErr == nil {
			dupErr = unix.SetNonblock(fd, true)
		}
	})
	if err = errors.Join(err, dupErr); err != nil {
		if fd >= 0 {
			_ = unix.Close(fd) // the first error says more
		}
		return nil, os.NewSyscallError("dup", err)
	}
	_, isUnix := addr.(*net.UnixAddr)
	l := &Listener{file: os.NewFile(uintptr(fd), file.Name()), addr: addr, unix: isUnix}
	if l.raw, err = l.file.SyscallConn(); err == nil && !isUnix {
		err = errors.Join(l.readSystem(l.raw), l.Control(func(fd uintptr) { Fit(int(fd)) }), l.SetOptions(o))
	}
	if err != nil {
		return nil, errors.Join(err, l.file.Close())
	}
	return l, nil
}

// Addr is the address that the system bound, a *net.TCPAddr or a *net.UnixAddr.
func (l *Listener) Addr() net.Addr { return l.addr }

// Control calls f with the descriptor.
func (l *Listener) Control(f func(fd uintptr)) error { return l.raw.Control(f) }

// Close ends Accept. Connections that wait in the queue are reset by the system.
func (l *Listener) Close() error {
	l.closed.Store(true)
	return l.file.Close()
}

// SetOptions sets what the sockets that connect from now on have. Linux passes
// the options of a listening socket on. They are TCP's: a unix socket has none.
func (l *Listener) SetOptions(o sockopt.Options) error {
	if l.unix {
		return nil
	}
	return l.setOptions(l.raw, o)
}

func (l *Listener) setOptions(c syscall.RawConn, o sockopt.Options) error {
	// Left alone, these would stay what an earlier call has set.
	o.KeepaliveInterval = cmp.Or(o.KeepaliveInterval, l.system.KeepaliveInterval)
	o.KeepaliveCount = cmp.Or(o.KeepaliveCount, l.system.KeepaliveCount)
	return o.ApplyRaw(c)
}

// readSystem learns the system's defaults from a socket that nobody has changed.
func (l *Listener) readSystem(c syscall.RawConn) error {
	var interval, count int
	var err error
	ctlErr := c.Control(func(fd uintptr) {
		if interval, err = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_KEEPINTVL); err == nil {
			count, err = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_KEEPCNT)
		}
	})
	l.system = sockopt.Options{KeepaliveInterval: time.Duration(interval) * time.Second, KeepaliveCount: count}
	return errors.Join(ctlErr, os.NewSyscallError("getsockopt", err))
}

// Accept waits for the next connection, and returns it and its peer. It returns
// net.ErrClosed after Close.
func (l *Listener) Accept() (*Socket, Peer, error) {
	var (
		fd   int
		peer syscall.Sockaddr
		err  error
	)
	waitErr := l.raw.Read(func(ln uintptr) bool {
		for {
			// x/sys would ask each socket for its protocol as well.
			fd, peer, err = syscall.Accept4(int(ln), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
			switch {
			case errors.Is(err, unix.EINTR), errors.Is(err, unix.ECONNABORTED):
			default:
				return !errors.Is(err, unix.EAGAIN)
			}
		}
	})
	if waitErr != nil {
		if l.closed.Load() {
			waitErr = net.ErrClosed
		}
		return nil, Peer{}, waitErr
	}
	if err != nil {
		return nil, Peer{}, os.NewSyscallError("accept4", err)
	}
	if l.unix {
		Fit(fd)
		return &Socket{fd: fd, unix: true}, Peer{Process: ProcessOf(fd)}, nil
	}
	return &Socket{fd: fd}, Peer{Addr: addrPort(peer)}, nil
}

func addrPort(sa syscall.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *syscall.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *syscall.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr).Unmap(), uint16(sa.Port))
	}
	return netip.AddrPort{}
}

// Dial connects to addr. Its errors are a *net.OpError, as net.Dialer's are.
func (d Dialer) Dial(ctx context.Context, addr netip.AddrPort) (*Socket, error) {
	for attempt := 0; ; attempt++ {
		fd, err := d.dial(ctx, addr)
		// A port that nobody listens on may be picked for this end as well, and
		// the socket is then connected to itself; net retries so, too.
		if err == nil && attempt < selfRetries && connectedToItself(fd, addr) {
			_ = unix.Close(fd)
			continue
		}
		if err != nil {
			return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: net.TCPAddrFromAddrPort(addr), Err: err}
		}
		return &Socket{fd: fd}, nil
	}
}

const selfRetries = 3

func (d Dialer) dial(ctx context.Context, addr netip.AddrPort) (int, error) {
	if err := ctx.Err(); err != nil {
		return -1, err
	}
	domain, sa := sockaddr(addr)
	fd, err := unix.Socket(domain, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	if err := errors.Join(d.Options.ApplyFD(fd), bind(fd, d.Bind)); err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	Fit(fd)
	err = unix.Connect(fd, sa)
	if err == unix.EINPROGRESS {
		// On the same machine it is connected, or refused, by now.
		err = unix.Connect(fd, sa)
	}
	switch err {
	case nil, unix.EISCONN:
		return fd, nil
	case unix.EALREADY, unix.EINTR:
		return await(ctx, fd)
	default:
		_ = unix.Close(fd) // the first error says more
		return -1, os.NewSyscallError("connect", err)
	}
}

// bind gives fd the address that it connects from.
func bind(fd int, from netip.Addr) error {
	if !from.IsValid() {
		return nil
	}
	sockopt.LeavePort(uintptr(fd))
	_, sa := sockaddr(netip.AddrPortFrom(from, 0))
	return os.NewSyscallError("bind", unix.Bind(fd, sa))
}

// await waits until fd is connected, with the help of the poller. It owns fd, and
// returns a duplicate, which the poller does not know.
func await(ctx context.Context, fd int) (int, error) {
	f := os.NewFile(uintptr(fd), "socket")
	defer f.Close()
	raw, err := f.SyscallConn()
	if err != nil {
		return -1, err
	}
	defer context.AfterFunc(ctx, func() {
		// It fails only once the file is closed.
		_ = f.SetWriteDeadline(time.Unix(1, 0))
	})()
	var dup int
	waitErr := raw.Write(func(fd uintptr) bool {
		var pending int
		if pending, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR); err != nil {
			return true
		}
		if pending != 0 {
			err = os.NewSyscallError("connect", syscall.Errno(pending))
			return true
		}
		if _, err = syscall.Getpeername(int(fd)); errors.Is(err, unix.ENOTCONN) {
			return false
		}
		if err == nil {
			dup, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0)
		}
		return true
	})
	if waitErr != nil {
		if ctx.Err() != nil {
			waitErr = ctx.Err()
		}
		return -1, waitErr
	}
	return dup, err
}

func connectedToItself(fd int, addr netip.AddrPort) bool {
	if !addr.Addr().IsLoopback() {
		return false
	}
	local, err := syscall.Getsockname(fd)
	return err == nil && addrPort(local) == netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())
}

func sockaddr(addr netip.AddrPort) (int, unix.Sockaddr) {
	ip := addr.Addr().Unmap()
	if ip.Is4() {
		return unix.AF_INET, &unix.SockaddrInet4{Port: int(addr.Port()), Addr: ip.As4()}
	}
	return unix.AF_INET6, &unix.SockaddrInet6{Port: int(addr.Port()), Addr: ip.As16(), ZoneId: zone(ip.Zone())}
}

// zone returns the index of an IPv6 zone, a name or a number; 0: none.
func zone(name string) uint32 {
	if name == "" {
		return 0
	}
	if i, err := net.InterfaceByName(name); err == nil {
		return uint32(i.Index)
	}
	n, err := strconv.ParseUint(name, 10, 32)
	if err != nil {
		return 0 // the system says that the address is not reachable so
	}
	return uint32(n)
}

// Gone says whether the connection is over both ways: reset, not merely ended by
// its peer.
func (s *Socket) Gone() bool { return gone(s.fd, s.unix) }

// Gone is the same of a connection that net holds, also under wrappers.
func Gone(c net.Conn) bool {
	c = Under(c)
	_, isUnix := c.(*net.UnixConn)
	socket, ok := c.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return true
	}
	var is bool
	err = raw.Control(func(fd uintptr) { is = gone(int(fd), isUnix) })
	return err != nil || is
}

// gone asks the system. Of a unix socket a hang-up says no more than that its peer has
// closed, as an end of file does of a TCP connection: what it has sent may still be there.
func gone(fd int, isUnix bool) bool {
	p := []unix.PollFd{{Fd: int32(fd)}}
	n, err := unix.Poll(p, 0)
	events := int16(unix.POLLERR)
	if !isUnix {
		events |= unix.POLLHUP
	}
	return err == nil && n > 0 && p[0].Revents&events != 0
}

// Take hands the descriptor over to the caller.
func (s *Socket) Take() int { return s.fd }

// Close closes the socket. What was written is still delivered, and it does not
// wait for that, whatever somebody else has made of SO_LINGER.
func (s *Socket) Close() {
	_ = unix.SetsockoptLinger(s.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{}) // it cannot fail
	_ = unix.Close(s.fd)                                                             // the descriptor is gone, whatever it returns
}

// Reset closes the socket so that its peer is reset, if it is a TCP socket.
func (s *Socket) Reset() {
	// It fails on a connection that is reset already.
	_ = unix.SetsockoptLinger(s.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	_ = unix.Close(s.fd)
}

func (s *Socket) conn() (net.Conn, error) {
	f := s.file()
	defer f.Close() // the connection has a duplicate
	return sockopt.FileConn(f)
}

func (s *Socket) poll() polled { return s.file() }

func (s *Socket) file() *os.File { return os.NewFile(uintptr(s.fd), "socket") }
