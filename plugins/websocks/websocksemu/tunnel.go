package websocksemu

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/tunneld/tunneld/internal/socks5"
)

// destination is where a tunnel leads. The connection is nil until it is made.
type destination struct {
	target string // "host:port" as the client asked for it
	conn   *net.TCPConn
}

// stop does what the faults want at a step, and says with errStopped that the
// connection has stopped.
func (c *conn) stop(at Step) error {
	if at == Never || c.faults.StopAt != at {
		return nil
	}
	_ = c.out.Flush()
	switch c.faults.StopBy {
	case Hang:
		c.hang()
	case Close:
		c.linger()
	case Reset:
		reset(c.raw)
	}
	return errStopped
}

// hang says nothing more until the client or the server closes.
func (c *conn) hang() {
	_ = c.raw.SetDeadline(time.Time{})
	_, _ = io.Copy(io.Discard, c.raw)
}

// linger ends the server's direction and reads on until the client has ended
// its own: to close with bytes unread would be a reset.
func (c *conn) linger() {
	_ = c.raw.SetDeadline(time.Now().Add(lingerTime))
	_ = c.out.Flush()
	_ = c.closeWrite()
	_, _ = io.Copy(io.Discard, c.raw)
}

// closeWrite ends the server's direction.
func (c *conn) closeWrite() error {
	if t, ok := c.stream.(*tls.Conn); ok && t.ConnectionState().HandshakeComplete && !c.faults.NoCloseNotify {
		return t.CloseWrite()
	}
	return c.raw.CloseWrite()
}

// run connects to the target once the client has sent a byte, and carries bytes
// until both directions have ended.
func (c *conn) run(d destination) {
	if d.conn == nil {
		if _, err := c.in.Peek(1); err != nil {
			c.end(err)
			return
		}
		var err error
		if d.conn, err = c.server.dial(d.target); err != nil {
			c.linger()
			return
		}
	}
	defer c.server.disown(d.conn)
	forward := func(dst io.Writer, src io.Reader, closeWrite func() error) {
		_, err := copyPlain(dst, src)
		if err == nil {
			err = closeWrite()
		}
		if err != nil {
			reset(d.conn)
			reset(c.raw)
		}
	}
	var up sync.WaitGroup
	up.Go(func() { forward(d.conn, c.in, d.conn.CloseWrite) })
	forward(c.stream, d.conn, c.closeWrite)
	up.Wait()
}

// end ends a tunnel whose client ended it before it had begun.
func (c *conn) end(err error) {
	if errors.Is(err, io.EOF) {
		c.linger()
		return
	}
	reset(c.raw)
}

var errNotLoopback = errors.New("the emulator reaches loopback addresses only")

// dial connects to a target. The connection is one of the server's.
func (s *Server) dial(target string) (*net.TCPConn, error) {
	address, ok := s.options.Targets[target]
	switch {
	case ok:
	case target == EchoTarget:
		address = s.echo.Addr().String()
	default:
		address = target
	}
	a, err := netip.ParseAddrPort(address)
	if err != nil || !a.Addr().IsLoopback() {
		return nil, fmt.Errorf("dial %q: %w", target, errNotLoopback)
	}
	conn, err := net.DialTimeout("tcp", a.String(), dialTime)
	if err != nil {
		return nil, err
	}
	tcp := conn.(*net.TCPConn)
	if !s.own(tcp) {
		return nil, net.ErrClosed
	}
	return tcp, nil
}

// dialCode is the REP for a failed connection to a target.
func dialCode(err error) socks5.Code {
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return socks5.ConnectionRefused
	case errors.Is(err, errNotLoopback):
		return socks5.HostUnreachable
	default:
		return socks5.GeneralFailure
	}
}

// echo sends back what comes, and ends its direction when the peer has.
func echo(c *net.TCPConn) {
	if _, err := copyPlain(c, c); err != nil {
		reset(c)
	}
}

// copyPlain is io.Copy without the runtime's splicing, for which an idle
// connection would hold a pipe.
func copyPlain(dst io.Writer, src io.Reader) (int64, error) {
	return io.Copy(struct{ io.Writer }{dst}, struct{ io.Reader }{src})
}
