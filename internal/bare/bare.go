// Package bare makes, accepts and adopts stream sockets outside Go's poller. Only the
// pump watches a tunnel's sockets, and what net does for each (watching it, asking for
// its addresses, setting options that it inherits from its listening socket anyway)
// costs more than the tunnel itself. On Linux a Socket is a descriptor; elsewhere it is
// a connection of net behind the same methods.
package bare

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"github.com/tunneld/tunneld/internal/sockopt"
)

// Conn hands the socket over to net, as a *net.TCPConn or *net.UnixConn. The
// Socket must not be used again, also after an error, which has closed it.
func (s *Socket) Conn() (net.Conn, error) {
	c, err := s.conn()
	if err != nil {
		return nil, fmt.Errorf("hand socket over: %w", err)
	}
	h, err := halfCloser(c)
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return h, nil
}

// listenTCP listens. control, unless nil, is called before.
func listenTCP(ctx context.Context, address string, control func(network, address string, c syscall.RawConn) error) (*net.TCPListener, error) {
	lc := net.ListenConfig{KeepAlive: -1, Control: control}
	// Go's default is a listener of Multipath TCP, which passes no options on
	// and whose connections are not spliced.
	lc.SetMultipathTCP(false)
	ln, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return ln.(*net.TCPListener), nil
}

// Dialer makes sockets. The zero value is useful.
type Dialer struct {
	Options sockopt.Options
	// Bind is the address that connections are made from; the zero Addr: any.
	Bind netip.Addr
}

// Under is the connection under c's wrappers, which name it by NetConn.
func Under(c net.Conn) net.Conn {
	for {
		w, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			return c
		}
		inner := w.NetConn()
		if inner == nil {
			return c
		}
		c = inner
	}
}

// Reset closes c so that a TCP peer is reset. A wrapper is gone around: closing it
// may say that the end is a clean one, as TLS does.
func Reset(c net.Conn) {
	c = Under(c)
	// Both fail only on a connection that is gone already.
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.Close()
}
