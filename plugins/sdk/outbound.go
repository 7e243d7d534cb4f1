package sdk

import (
	"context"
	"net"
	"strings"
	"syscall"

	"github.com/tunneld/tunneld/internal/outbound"
)

// Outbound makes the TCP connections of an upstream as its block has them. It may
// be used by several goroutines at once, and beyond the dial that it came with.
type Outbound struct{ dialer outbound.Dialer }

// DialContext connects to address, "host:port"; network is "tcp". All addresses of
// a name are tried, both families in turn and side by side (RFC 8305). It has no
// timeout of its own: bound it with ctx. Nodelay is on until the connection is
// handed over and as the user wants it from then on, since a handshake must not
// wait; the user's other socket options are set.
//
// On Linux each connection is watched until it is closed, for as long as the
// process lives: where the far end's system acknowledges nothing for three minutes
// of what it was sent, the line is dead and the connection is reset.
func (o *Outbound) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	if network != "tcp" {
		return nil, &net.OpError{Op: "dial", Net: network, Err: net.UnknownNetworkError(network)}
	}
	return o.dialer.Dial(ctx, address, nil)
}

// Outbound returns what makes the request's connections, for who connects later or
// through a library. See Connect.
func (r *Request) Outbound() *Outbound {
	o := &Outbound{outbound.Dialer{Socket: r.Options}}
	if watch := r.watch; watch != nil {
		o.dialer.Control = func(network, address string, c syscall.RawConn) error {
			if strings.HasPrefix(network, "tcp") {
				watch(address, c)
			}
			return nil
		}
	}
	return o
}

// Connect connects to address, "host:port", as Outbound().DialContext does, and
// enters the stages that this takes: resolve, and then connect.
func (r *Request) Connect(ctx context.Context, address string) (net.Conn, error) {
	return r.Outbound().dialer.Dial(ctx, address, r.Enter)
}

// Bound calls f, which reads and writes conn, and ends what f does there when ctx
// is done: the error is then ctx's cause. It is for handshakes, whose readers know
// no context. After an error conn is of no use.
func Bound(ctx context.Context, conn net.Conn, f func() error) error {
	return outbound.Bound(ctx, conn, f)
}
