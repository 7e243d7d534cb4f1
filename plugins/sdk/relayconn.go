package sdk

import (
	"net"
	"syscall"
	"time"

	"github.com/tunneld/tunneld/internal/bare"
	"github.com/tunneld/tunneld/internal/tlsconf"
)

// RelayConn is Relay for a connection that carries the tunnel's bytes as they are, but is
// not a bare kernel socket: a *tls.Conn and the like. conn belongs to the SDK from here
// on, which lifts its deadlines. At the client's end of file CloseWrite is called if conn
// has that method; otherwise the far end does not learn of it. A tunnel that is broken
// off resets the socket under conn (see Socket), so that no close_notify makes it look
// like a clean end, and so does the death of the plugin.
//
// A *tls.Conn has to come from TLS.Client, or be made over StrictEOF: otherwise it
// reports a connection that was cut between two records as a clean end.
func RelayConn(conn net.Conn) *Tunnel {
	return Relay(newConnStream(conn, nil), conn.LocalAddr(), conn.RemoteAddr())
}

// connStream is a Stream over a connection.
type connStream struct {
	net.Conn
	prefix []byte // read before the connection
}

func newConnStream(conn net.Conn, prefix []byte) *connStream {
	// A handshake's deadline must not end the tunnel.
	_ = conn.SetDeadline(time.Time{})
	s := &connStream{Conn: conn, prefix: prefix}
	// The kernel closes what a killed process leaves: with this option by a
	// reset, which the far end cannot take for an end of file.
	s.linger(0)
	return s
}

// linger sets SO_LINGER where the transport is TCP.
func (s *connStream) linger(seconds int) {
	if t, ok := bare.Under(s.Conn).(*net.TCPConn); ok {
		_ = t.SetLinger(seconds)
	}
}

func (s *connStream) Read(b []byte) (int, error) {
	if len(s.prefix) > 0 {
		n := copy(b, s.prefix)
		s.prefix = s.prefix[n:]
		return n, nil
	}
	return s.Conn.Read(b)
}

func (s *connStream) CloseWrite() error {
	if c, ok := s.Conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return nil
}

// Close ends the connection cleanly: what was written is still delivered.
func (s *connStream) Close() error {
	s.linger(-1)
	return s.Conn.Close()
}

func (s *connStream) Abort(string) { _ = bare.Under(s.Conn).Close() }

// NetConn returns the connection beneath.
func (s *connStream) NetConn() net.Conn { return s.Conn }

// socketOf is the TCP connection that a stream says it is on, or nil.
func socketOf(s Stream) syscall.Conn {
	w, ok := s.(interface{ NetConn() net.Conn })
	if !ok {
		return nil
	}
	if c, ok := bare.Under(w.NetConn()).(*net.TCPConn); ok {
		return c
	}
	return nil
}

// StrictEOF wraps the connection that TLS will be spoken on. crypto/tls takes
// an end of file between two records for the end of the data, although RFC
// 8446, section 6.1, demands a close_notify for that. With the wrapper it is
// io.ErrUnexpectedEOF, so that a far end that has crashed does not look like one that has
// finished.
func StrictEOF(conn net.Conn) net.Conn { return tlsconf.Strict(conn) }
