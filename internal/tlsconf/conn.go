package tlsconf

import (
	"crypto/tls"
	"net"
	"syscall"
)

// maxPlaintext is the most that a record holds (RFC 8446, section 5.1).
const maxPlaintext = 16 << 10

// Ends says how the two directions of a Conn end. The zero value sends close_notify, and
// takes that or an end of file for the peer's end.
type Ends struct {
	// FIN ends this side's direction by TCP's end of file alone.
	FIN bool
	// Strict takes an end of file without close_notify for an error, as the function does.
	Strict bool
}

// Conn is a TLS connection for bulk: it writes the records of one Write at once, holds no
// buffer while it is waited for by AwaitData, and ends as its Ends say. One goroutine may
// read while another writes.
type Conn struct {
	*tls.Conn
	floor *floor
	fin   bool
}

// ClientConn speaks TLS as a client on conn, which is the result's.
func ClientConn(conn net.Conn, config *tls.Config, ends Ends) *Conn {
	f := newFloor(conn, ends)
	return &Conn{tls.Client(f, config), f, ends.FIN}
}

// ServerConn speaks TLS as a server on conn, which is the result's. ahead is what was read
// of conn already.
func ServerConn(conn net.Conn, ahead []byte, config *tls.Config, ends Ends) *Conn {
	f := newFloor(conn, ends)
	f.ahead = ahead
	return &Conn{tls.Server(f, config), f, ends.FIN}
}

// Meter is asked of what comes during a handshake. An error ends it.
type Meter struct {
	// Record is asked of each record, with its size in bytes, before crypto/tls has any of
	// it. The peer of a refused one gets the alert record_overflow.
	Record func(size int) error
	// Bytes is asked of what was read of the connection. The peer gets no alert.
	Bytes func(n int) error
}

// HandshakeWithin does the handshake of a server, measured by m. From then on the
// connection ends with an error, and the same alert, if its client sends more than 16 KiB, and
// the record under way, without a byte of data.
//
// A peer's alert is the error also where it has come in the clear: OpenSSL's client refuses
// a certificate so with TLS 1.3, and crypto/tls cannot decrypt it.
func (c *Conn) HandshakeWithin(m Meter) error {
	c.floor.meter = &m
	err := c.Handshake()
	c.floor.meter, c.floor.bounded, c.floor.quiet = nil, true, 0
	if err != nil && c.floor.alert != 0 {
		return &net.OpError{Op: "remote error", Err: c.floor.alert}
	}
	return c.because(err)
}

// because puts the reason for which a record was refused in the place of what crypto/tls
// says of the one that it was given instead.
func (c *Conn) because(err error) error {
	if err != nil && c.floor.refused != nil {
		return c.floor.refused
	}
	return err
}

// Read reads as crypto/tls does.
func (c *Conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 {
		c.floor.quiet = 0
	}
	return n, c.because(err)
}

// Bulk has the reads from now on take as much from a socket as there is.
func (c *Conn) Bulk() { c.floor.bulk = true }

// ReadNow reads, after Bulk, what has come with AwaitData, or with a read before. Its error
// is syscall.EAGAIN once there is no more, or only a part of a record: AwaitData comes next
// then. Where the connection beneath is not a socket, it is a Read after each AwaitData.
func (c *Conn) ReadNow(b []byte) (int, error) {
	if c.floor.raw == nil {
		if !c.floor.awaited {
			return 0, syscall.EAGAIN
		}
		c.floor.awaited = false
		return c.Read(b)
	}
	c.floor.now = true
	n, err := c.Read(b)
	c.floor.now = false
	return n, err
}

// AwaitData waits, after Bulk, until ReadNow may have something, or the read deadline.
func (c *Conn) AwaitData() error { return c.floor.await() }

// HasData says whether more was read of a socket than ReadNow has returned yet, apart from a
// record that was returned in part, and from what came with the handshake.
func (c *Conn) HasData() bool { return c.floor.buf != nil }

// EndedByAlert says, after an io.EOF, whether that was the peer's close_notify, and not an
// end of file.
func (c *Conn) EndedByAlert() bool { return !c.floor.eof }

// Write writes b, and the records that it takes at once.
func (c *Conn) Write(b []byte) (int, error) {
	if len(b) <= maxPlaintext {
		return c.Conn.Write(b)
	}
	c.floor.begin()
	n, err := c.Conn.Write(b)
	if flushErr := c.floor.flush(); flushErr != nil {
		return 0, flushErr
	}
	return n, err
}

// CloseWrite ends this side's direction, once every Write has returned; reading goes on.
// It waits, as a write does, until there is room for the alert.
func (c *Conn) CloseWrite() error {
	if c.fin {
		return FIN{c.Conn}.CloseWrite()
	}
	c.floor.closing.Store(true)
	defer c.floor.closing.Store(false)
	return c.Conn.CloseWrite()
}

// Close closes the connection, cleanly as far as that is this side's to say.
func (c *Conn) Close() error {
	if c.fin {
		return c.NetConn().Close()
	}
	return c.Conn.Close()
}
