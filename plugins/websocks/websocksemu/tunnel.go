package websocksemu

import (
	"context"
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
	target  string // "host:port" as the client asked for it
	address string // where that leads, "host:port"; empty: nowhere
	conn    *net.TCPConn
}

// underTLS is the socket that TLS is spoken on. It tells a bare FIN from a
// close_notify, which crypto/tls reports alike.
type underTLS struct {
	*net.TCPConn
	ended bool // by FIN
}

func (u *underTLS) Read(b []byte) (int, error) {
	n, err := u.TCPConn.Read(b)
	if err == io.EOF {
		u.ended = true
	}
	return n, err
}

// stop does what the faults want at a step, and says with errStopped that the
// connection has stopped.
func (c *conn) stop(at Step) error {
	if at == Never || c.faults.StopAt != at {
		return nil
	}
	c.log.Debug("fault", "at", at.String(), "does", c.faults.StopBy.String())
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
	if t, ok := c.stream.(*tls.Conn); ok && t.ConnectionState().HandshakeComplete && c.faults.CloseNotify {
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
		if d.conn, err = c.server.dial(d); err != nil {
			c.log.Debug("target not reached", "target", d.target, "err", err)
			c.linger()
			return
		}
	}
	defer c.server.serving.Drop(d.conn)
	forward := func(dst io.Writer, src io.Reader, closeWrite func() error) {
		_, err := copyPlain(dst, src)
		if errors.Is(err, errBroken) {
			c.keep()
		} else if err == nil {
			err = closeWrite()
		}
		if err != nil {
			reset(d.conn)
			reset(c.raw)
		}
	}
	var up sync.WaitGroup
	up.Go(func() { forward(d.conn, fromClient{c}, d.conn.CloseWrite) })
	forward(toClient{c}, d.conn, c.closeWrite)
	up.Wait()
}

// errBroken is the end of what a client sends by close_notify.
var errBroken = errors.New("close_notify is an error to this server")

// fromClient is what a tunnel's client sends. What came together with a
// close_notify is thrown away with it.
type fromClient struct{ *conn }

func (f fromClient) Read(b []byte) (int, error) {
	n, err := f.in.Read(b)
	if f.broken.Load() {
		return 0, errBroken
	}
	return n, err
}

// toClient swallows what is written once the client's close_notify has broken
// the connection, as the original's agent does, which has the same code for TLS.
type toClient struct{ *conn }

func (t toClient) Write(b []byte) (int, error) {
	if t.broken.Load() {
		return len(b), nil
	}
	return t.stream.Write(b)
}

// keep keeps a broken connection until its client closes it, or the idle time is
// over.
func (c *conn) keep() {
	c.server.expect(c.raw)
	_, _ = io.Copy(io.Discard, c.raw)
}

// end ends a tunnel whose client ended it before it had begun.
func (c *conn) end(err error) {
	switch {
	case c.broken.Load():
		c.keep()
	case errors.Is(err, io.EOF):
		c.linger()
	default:
		reset(c.raw)
	}
}

var (
	errUnmapped   = errors.New("neither mapped nor an address on loopback")
	errUnresolved = errors.New("no such name")
)

// resolve returns the address, "host:port", that a client's request means.
func (s *Server) resolve(a socks5.Address) (string, error) {
	target := a.String()
	if backend, ok := s.options.Targets[target]; ok {
		return lookUp(backend)
	}
	if target == EchoTarget {
		return s.echo.Addr().String(), nil
	}
	if a.Host == "localhost" {
		a.Host = "127.0.0.1"
	}
	ip, err := netip.ParseAddr(a.Host)
	switch {
	case err == nil && ip.IsLoopback():
		return a.String(), nil
	case err == nil || s.named(a.Host):
		return "", nil
	}
	return "", fmt.Errorf("resolve %q: %w", a.Host, errUnresolved)
}

// lookUp returns a backend as it is given, if its name has an address.
func lookUp(backend string) (string, error) {
	host, _, err := net.SplitHostPort(backend)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), dialTime)
	defer cancel()
	_, err = net.DefaultResolver.LookupHost(ctx, host)
	return backend, err
}

// named says whether a target of that name is known, on whatever port.
func (s *Server) named(host string) bool {
	for target := range s.options.Targets {
		if name, _, err := net.SplitHostPort(target); err == nil && name == host {
			return true
		}
	}
	return false
}

// dial connects to a target. The connection is one of the server's.
func (s *Server) dial(d destination) (*net.TCPConn, error) {
	if d.address == "" {
		return nil, fmt.Errorf("dial %q: %w", d.target, errUnmapped)
	}
	conn, err := net.DialTimeout("tcp", d.address, dialTime)
	if err != nil {
		return nil, err
	}
	tcp := conn.(*net.TCPConn)
	if !s.serving.Add(tcp) {
		return nil, net.ErrClosed
	}
	return tcp, nil
}

// dialCode is the REP for a failed connection to a target.
func dialCode(err error) socks5.Code {
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return socks5.ConnectionRefused
	case errors.Is(err, errUnmapped):
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
