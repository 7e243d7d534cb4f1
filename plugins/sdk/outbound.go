package sdk

import (
	"context"
	"net"
	"net/http"
	"time"

	"github.com/tunneld/tunneld/internal/bare"
	"github.com/tunneld/tunneld/internal/outbound"
)

// Outbound makes the TCP connections of an upstream as its block has them: with its
// socket options, from its bind address and through its via, the proxy in front. It
// may be used by several goroutines at once, and beyond the dial that it came with.
// The zero value makes connections as the system does.
type Outbound struct{ dialer outbound.Dialer }

// DialContext connects to address, "host:port", and returns once bytes can flow;
// network is "tcp". All addresses of a name are tried, both families in turn and
// side by side (RFC 8305); a proxy is given the name. It has no timeout of its own
// unless from Within: bound it with ctx. Nodelay is on until the connection is handed over and as the
// user wants it from then on, since a handshake must not wait.
//
// The connection is a *net.TCPConn, also behind a proxy: what the far end sends at
// once is still in it. Only behind an https proxy is it a *tls.Conn. An error of
// the proxy is one of the stage connect; the SDK knows what it means.
//
// On Linux each connection is watched until it is closed, for as long as the
// process lives: where the far end's system acknowledges nothing for three minutes
// of what it was sent, the line is dead and the connection is reset.
func (o Outbound) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	if network != "tcp" {
		return nil, &net.OpError{Op: "dial", Net: network, Err: net.UnknownNetworkError(network)}
	}
	return o.dialer.Dial(ctx, address, nil)
}

// Use makes t's connections those of o. An HTTP proxy is sent requests over plain
// http as such, since most refuse CONNECT to port 80; all others go through a
// connection of DialContext. It sets t's DialContext and Proxy.
func (o Outbound) Use(t *http.Transport) { o.dialer.Use(t) }

// Within returns what makes the same connections, each within limit, a proxy's part
// included; 0 is no limit.
func (o Outbound) Within(limit time.Duration) Outbound {
	o.dialer.Timeout = limit
	return o
}

// OrEnvironment returns o where the upstream's block names a proxy, and otherwise
// one whose proxy is that of the environment (HTTPS_PROXY, NO_PROXY): for services
// beside the far end, which are elsewhere. Its error shows nothing of the variables.
func (o Outbound) OrEnvironment() (Outbound, error) {
	if !o.dialer.Via.IsZero() {
		return o, nil
	}
	via, err := outbound.ParseVia(outbound.Environment)
	o.dialer.Via = via
	return o, err
}

// Secrets are what the proxy is told in confidence, and may repeat in a text of
// its own; see Redact.
func (o Outbound) Secrets() []string { return o.dialer.Via.Secrets() }

// Outbound returns what makes the request's connections, for who connects later or
// through a library. See Connect.
func (r *Request) Outbound() Outbound {
	return Outbound{r.way.dialer(r.Options, r.watch)}
}

// Connect connects to address, "host:port", as Outbound().DialContext does, and
// enters the stages that this takes: resolve, and then connect.
func (r *Request) Connect(ctx context.Context, address string) (net.Conn, error) {
	o := r.Outbound()
	return o.dialer.Dial(ctx, address, r.Enter)
}

// Bound calls f, which reads and writes conn, and ends what f does there when ctx
// is done: the error is then ctx's cause. It is for handshakes, whose readers know
// no context. After an error conn is of no use.
func Bound(ctx context.Context, conn net.Conn, f func() error) error {
	return outbound.Bound(ctx, conn, f)
}

// Socket returns the connection at the bottom of conn, such as the TCP connection
// of a *tls.Conn: what NetConn leads to.
func Socket(conn net.Conn) net.Conn { return bare.Under(conn) }

// backgroundOptions are those of connections that no listener asked for.
var backgroundOptions = SocketOptions{Nodelay: true, KeepaliveIdle: 30 * time.Second, KeepaliveInterval: 10 * time.Second, KeepaliveCount: 6}
