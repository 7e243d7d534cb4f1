package tlsconf

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
)

// FIN is a TLS connection that ends its own direction by TCP's end of file alone
// and never sends close_notify. The peer's end is what Strict says of it, whether
// this side sends the alert or not.
type FIN struct{ *tls.Conn }

// CloseWrite ends this side's direction once every Write has returned; reading
// goes on. It is an error where what lies beneath the TLS has no CloseWrite.
func (c FIN) CloseWrite() error {
	for beneath := c.NetConn(); beneath != nil; {
		if half, ok := beneath.(interface{ CloseWrite() error }); ok {
			return half.CloseWrite()
		}
		wrapper, ok := beneath.(interface{ NetConn() net.Conn })
		if !ok {
			break
		}
		beneath = wrapper.NetConn()
	}
	return fmt.Errorf("close write: a %T has none", c.NetConn())
}

// Close closes the connection beneath.
func (c FIN) Close() error { return c.NetConn().Close() }

// Strict wraps the connection that TLS is to be spoken on. crypto/tls takes an end
// of file between two records for the end of the data: with the wrapper it is an
// error of Read that wraps io.ErrUnexpectedEOF, and only close_notify is io.EOF. A
// peer that crashed then does not look like one that has finished.
func Strict(conn net.Conn) net.Conn { return strict{conn} }

type strict struct{ net.Conn }

// errTruncated is not io.ErrUnexpectedEOF itself, which crypto/tls turns into
// io.EOF.
type errTruncated struct{}

func (errTruncated) Error() string { return "the far end closed the connection without a close_notify" }

func (errTruncated) Unwrap() error { return io.ErrUnexpectedEOF }

func (c strict) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	return n, truncated(err)
}

// truncated makes an error of an end of file.
func truncated(err error) error {
	if err == io.EOF {
		return errTruncated{}
	}
	return err
}

// NetConn returns the connection beneath.
func (c strict) NetConn() net.Conn { return c.Conn }
