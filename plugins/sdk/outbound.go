package sdk

import (
	"context"
	"net"
	"net/http"
	"time"

	"github.com/tunneld/tunneld/internal/bare"
	"github.com/tunneld/tunneld/internal/outbound"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// Outbound makes the TCP connections of an upstream as its block says: with its socket
// options, from its bind address and through the proxy that its via names. Several
// goroutines may use it at once, and after the dial that it came with. The zero value
// makes connections as the system does.
type Outbound struct{ dialer outbound.Dialer }

// DialContext connects to address, "host:port", and returns once bytes can flow;
// network is "tcp". All addresses of a name are tried, IPv6 and IPv4 side by side (RFC
// 8305); a proxy is given the name. It has no timeout unless Within set one: bound it
// with ctx. Nodelay is on during the handshake, and as the user wants it from Direct or
// RelayConn on.
//
// The connection is a *net.TCPConn, also behind a proxy; only behind an https proxy it is
// a *tls.Conn. It belongs to the caller. NetworkError says what an error means, also one
// of the proxy, whose stage is StageConnect.
//
// On Linux each connection is watched until it is closed. Where the far end's system
// acknowledges nothing for three minutes of what it was sent, the line is dead, and the
// connection is reset.
func (o Outbound) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	if network != "tcp" {
		return nil, &net.OpError{Op: "dial", Net: network, Err: net.UnknownNetworkError(network)}
	}
	return o.dialer.Dial(ctx, address, nil)
}

// Use lets t make its connections by o: it sets t's DialContext and Proxy. Requests over
// plain http are sent to an HTTP proxy as such, since most refuse CONNECT to port 80; all
// others go through a connection of DialContext.
func (o Outbound) Use(t *http.Transport) { o.dialer.Use(t) }

// ReportAlerts makes the alert of a server that refuses the client's certificate the
// error of t's request. With TLS 1.3 it comes when the handshake is over for the client
// (RFC 8446, section 4.4.2.4), and the transport by itself may report that it could not
// write instead, which NetworkError takes for a failure of the network.
//
// Call it behind Use: t's DialContext must be set. TLS is as t's TLSClientConfig and
// TLSHandshakeTimeout have it; a Response has no TLS. Call it again for a clone of t,
// which has the TLS of t until then.
func ReportAlerts(t *http.Transport) { outbound.ReportAlerts(t) }

// Within returns an Outbound that makes the same connections, each within limit, a
// proxy's part included; 0: no limit.
func (o Outbound) Within(limit time.Duration) Outbound {
	o.dialer.Timeout = limit
	return o
}

// OrEnvironment returns o where the upstream's block names a proxy, and otherwise an
// Outbound whose proxy is that of the environment (HTTPS_PROXY, NO_PROXY). It is for
// services other than the far end, such as a token service. The error, of a variable that
// names no proxy, shows nothing of its value.
func (o Outbound) OrEnvironment() (Outbound, error) {
	if !o.dialer.Via.IsZero() {
		return o, nil
	}
	via, err := outbound.ParseVia(outbound.Environment)
	o.dialer.Via = via
	return o, err
}

// Secrets returns the credentials that the proxy is sent, and may repeat in a text of its
// own: pass them to Excerpt or Redact.
func (o Outbound) Secrets() []string { return o.dialer.Via.Secrets() }

// Outbound returns what makes the request's connections, for code that connects later or
// for a library that connects by itself. Where neither is needed use Connect.
func (r *Request) Outbound() Outbound {
	return Outbound{r.way.dialer(r.Options, r.watch)}
}

// Connect connects to address, "host:port", as DialContext of Outbound does, and enters
// StageResolve, where there is a name to resolve, and StageConnect.
func (r *Request) Connect(ctx context.Context, address string) (net.Conn, error) {
	o := r.Outbound()
	return o.dialer.Dial(ctx, address, func(s pluginv1.Stage) { r.Enter(Stage(s)) })
}

// Bound calls f, which reads and writes conn, and makes those calls fail when ctx is
// done. It returns the error of f, or the cause of ctx (context.Cause) if ctx ended it.
// It is for handshakes, since a Read knows no context. After an error conn is unusable;
// the caller closes it. f sets no deadlines on conn.
func Bound(ctx context.Context, conn net.Conn, f func() error) error {
	return outbound.Bound(ctx, conn, f)
}

// Socket returns the connection at the bottom of conn, such as the TCP connection
// of a *tls.Conn: it follows NetConn() net.Conn as far as that leads.
func Socket(conn net.Conn) net.Conn { return bare.Under(conn) }

// backgroundOptions are those of connections that no listener asked for.
var backgroundOptions = SocketOptions{Nodelay: true, KeepaliveIdle: 30 * time.Second, KeepaliveInterval: 10 * time.Second, KeepaliveCount: 6}
