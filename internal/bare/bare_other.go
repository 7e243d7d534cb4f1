//go:build !linux

package bare

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"

	"github.com/tunneld/tunneld/internal/sockopt"
)

// Socket is a connected stream socket, TCP or unix. Its owner ends it by exactly
// one of Conn, Stream, Reset and Close. It is not safe for concurrent use.
type Socket struct{ net net.Conn }

// Adopt takes over fd, a connected stream socket that somebody else made; it is
// non-blocking and close-on-exec. On an error fd has been closed.
func Adopt(fd int) (*Socket, error) {
	f := os.NewFile(uintptr(fd), "socket")
	c, err := sockopt.FileConn(f) // a duplicate
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	return &Socket{c}, nil
}

// Listener accepts bare sockets. Its methods may be called by several
// goroutines.
type Listener struct {
	ln      net.Listener // *net.TCPListener or *net.UnixListener
	options atomic.Pointer[sockopt.Options]
}

// Listen binds address ("host:port") and listens. o is what the sockets that are
// accepted have; see SetOptions.
func Listen(ctx context.Context, address string, o sockopt.Options) (*Listener, error) {
	ln, err := listenTCP(ctx, address, nil)
	if err != nil {
		return nil, err
	}
	l := &Listener{ln: ln}
	l.options.Store(&o)
	return l, nil
}

// ListenUnix takes over a unix socket that listens, and that leaves its path alone when it
// is closed.
func ListenUnix(ln *net.UnixListener) (*Listener, error) { return &Listener{ln: ln}, nil }

// Inherit takes a listening socket that another process has bound, a TCP or a unix one.
// file stays its owner's, whom the closing of the Listener does not concern. o is as in
// Listen.
func Inherit(file *os.File, _ net.Addr, o sockopt.Options) (*Listener, error) {
	ln, err := net.FileListener(file) // a duplicate
	if err != nil {
		return nil, err
	}
	switch ln := ln.(type) {
	case *net.TCPListener:
	case *net.UnixListener:
		ln.SetUnlinkOnClose(false) // its owner does
	default:
		return nil, errors.Join(errors.New("it is neither a TCP nor a unix socket"), ln.Close())
	}
	l := &Listener{ln: ln}
	l.options.Store(&o)
	return l, nil
}

// Addr is the address that the system bound, a *net.TCPAddr or a *net.UnixAddr.
func (l *Listener) Addr() net.Addr { return l.ln.Addr() }

// Control calls f with the descriptor.
func (l *Listener) Control(f func(fd uintptr)) error {
	raw, err := l.ln.(syscall.Conn).SyscallConn()
	if err != nil {
		return err
	}
	return raw.Control(f)
}

// Close ends Accept. Connections that wait in the queue are reset by the system.
func (l *Listener) Close() error { return l.ln.Close() }

// SetOptions sets what the sockets that are accepted from now on have, if they are TCP's.
func (l *Listener) SetOptions(o sockopt.Options) error {
	l.options.Store(&o)
	return nil
}

// Accept waits for the next connection, and returns it and its peer. It returns
// net.ErrClosed after Close.
func (l *Listener) Accept() (*Socket, Peer, error) {
	c, err := l.ln.Accept()
	if err != nil {
		return nil, Peer{}, err
	}
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return &Socket{c}, Peer{Process: processOf(c)}, nil
	}
	// It fails on a connection that is reset already.
	_ = l.options.Load().Apply(tcp)
	peer := tcp.RemoteAddr().(*net.TCPAddr).AddrPort()
	return &Socket{c}, Peer{Addr: netip.AddrPortFrom(peer.Addr().Unmap(), peer.Port())}, nil
}

func processOf(c net.Conn) (p Process) {
	raw, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		return p
	}
	_ = raw.Control(func(fd uintptr) { p = ProcessOf(int(fd)) }) // an error: it is closed
	return p
}

// Dial connects to addr. Its errors are a *net.OpError, as net.Dialer's are.
func (d Dialer) Dial(ctx context.Context, addr netip.AddrPort) (*Socket, error) {
	dialer := d.Options.Dialer()
	if d.Bind.IsValid() {
		dialer.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(d.Bind, 0))
	}
	c, err := dialer.DialContext(ctx, "tcp", addr.String())
	if err != nil {
		return nil, err
	}
	tcp := c.(*net.TCPConn)
	if err := tcp.SetNoDelay(d.Options.Nodelay); err != nil {
		_ = tcp.Close() // the first error says more
		return nil, err
	}
	return &Socket{tcp}, nil
}

// Gone is not to be known here: false.
func (s *Socket) Gone() bool { return false }

// Gone is not to be known here: false.
func Gone(net.Conn) bool { return false }

// Close closes the socket.
func (s *Socket) Close() {
	// The socket is gone, whatever it returns.
	_ = s.net.Close()
}

// Reset closes the socket so that its peer is reset, if it is a TCP socket.
func (s *Socket) Reset() {
	if c, ok := s.net.(*net.TCPConn); ok {
		// It fails on a connection that is reset already.
		_ = c.SetLinger(0)
	}
	s.Close()
}

func (s *Socket) conn() (net.Conn, error) { return s.net, nil }

func (s *Socket) poll() polled { return s.net.(polled) }
