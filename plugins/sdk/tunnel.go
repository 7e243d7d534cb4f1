package sdk

import (
	"io"
	"net"
)

// Tunnel is a connection that was made: see Direct, Relay and RelayConn.
type Tunnel struct {
	conn       net.Conn // the kernel socket of a direct tunnel
	prefetched []byte
	stream     Stream // of a relay tunnel
	local      string
	remote     string
}

// Stream is a tunnel whose bytes the plugin has to frame or encrypt. One
// goroutine reads while another writes. The writing one calls CloseWrite, any one may call
// Abort. Exactly one of Close and Abort is called, once, and ends a Read or Write under
// way. A panic in any of them ends that tunnel alone.
//
// A Stream on a single TCP connection should also have the method NetConn() net.Conn,
// which returns that connection or one above it, as that of *tls.Conn does. If the line
// is dead (see Outbound.DialContext), the log then says that this is why the tunnel
// ended.
type Stream interface {
	// Read returns io.EOF only where the far end has ended its direction
	// cleanly. Any other error ends the tunnel, and the client is reset.
	io.Reader
	// Write returns once the transport has taken the bytes, which it must not keep.
	// Any error ends the tunnel, and the client is reset.
	io.Writer
	// CloseWrite tells the far end that no more bytes come; reading goes on. With
	// Plugin.NoHalfClose it returns once the far end has taken all that was written,
	// and with an error where it has not.
	CloseWrite() error
	// Close ends a tunnel of which both directions have ended cleanly.
	Close() error
	// Abort ends the tunnel so that the far end does not see a clean end, as
	// far as the protocol can tell the difference. It may come while another
	// method runs, which then returns an error and sends nothing more.
	Abort(reason string)
}

// Direct hands a kernel socket over to the daemon: after the handshake the
// tunnel's bytes are the connection's own, and the plugin is out of the way.
// conn is a *net.TCPConn or a *net.UnixConn, and belongs to the SDK from here on. A
// *tls.Conn, as Request.Connect returns behind an https proxy, is accepted as well, and
// pumped as by RelayConn; with any other connection the dial fails. prefetched is what the
// handshake read too far, nil where it read exactly its own part; it is copied.
func Direct(conn net.Conn, prefetched []byte) *Tunnel {
	return &Tunnel{
		conn:       conn,
		prefetched: append([]byte(nil), prefetched...),
		local:      address(conn.LocalAddr()),
		remote:     address(conn.RemoteAddr()),
	}
}

// Relay lets the SDK pump the bytes between the daemon and s, which belongs to the
// SDK from here on. local and remote are the transport's two ends, for the
// log; either may be nil. The system closes the sockets of a plugin that dies, and the
// far end sees an end of file. Where its protocol takes that for a clean end, call
// SetLinger(0) on the TCP connection when the tunnel begins, so that it is reset, and
// SetLinger(-1) in Close.
func Relay(s Stream, local, remote net.Addr) *Tunnel {
	return &Tunnel{stream: s, local: address(local), remote: address(remote)}
}

func address(a net.Addr) string {
	if a == nil {
		return ""
	}
	return a.String()
}
