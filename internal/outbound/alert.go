package outbound

import (
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/tunneld/tunneld/internal/tlsconf"
)

// KeepAlert wraps a TLS connection which one goroutine reads while another writes. The
// alert with which the peer ends the connection is then the error of both, also where a
// write runs into the reset that follows it. CloseWrite is that of c.
func KeepAlert(c *tlsconf.Conn) net.Conn {
	return &alertConn{Conn: c, ended: make(chan struct{})}
}

// alertConn keeps the error that ends its reads for its writes.
type alertConn struct {
	*tlsconf.Conn
	once  sync.Once
	ended chan struct{} // closed with the first error of a read
	err   error         // that error; set before ended is closed
}

// alertWait is how long a write that has failed waits for the alert to be read: the
// reset that it ran into came behind it.
const alertWait = 100 * time.Millisecond

func (c *alertConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.keep(err)
	return n, err
}

// ReadNow does what that of the connection does.
func (c *alertConn) ReadNow(b []byte) (int, error) {
	n, err := c.Conn.ReadNow(b)
	if !errors.Is(err, syscall.EAGAIN) {
		c.keep(err)
	}
	return n, err
}

func (c *alertConn) keep(err error) {
	if err != nil {
		c.once.Do(func() { c.err = err; close(c.ended) })
	}
}

func (c *alertConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	return n, c.cause(err)
}

// CloseWrite sends close_notify.
func (c *alertConn) CloseWrite() error { return c.cause(c.Conn.CloseWrite()) }

// cause returns why a write has failed: with what reading has ended, unless that was
// cleanly.
func (c *alertConn) cause(err error) error {
	if err == nil {
		return nil
	}
	t := time.NewTimer(alertWait)
	defer t.Stop()
	select {
	case <-c.ended:
		if c.err != io.EOF {
			return c.err
		}
	case <-t.C:
	}
	return err
}
