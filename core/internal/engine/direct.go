package engine

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/tunneld/tunneld/core/internal/config"
	"github.com/tunneld/tunneld/core/internal/tunnel"
	"github.com/tunneld/tunneld/internal/bare"
	"github.com/tunneld/tunneld/internal/neterr"
	"github.com/tunneld/tunneld/internal/outbound"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// direct is the built-in upstream: a TCP connection to the target itself.
type direct struct {
	id     string
	socket tunnel.SocketOptions
	via    outbound.Via
	bind   netip.Addr
}

func newDirect(u config.Upstream) direct {
	return direct{id: u.ID(), socket: u.Socket, via: u.Common.Via, bind: u.Common.Bind}
}

// Dial resolves the target and connects to it.
func (d direct) Dial(ctx context.Context, req tunnel.Dial) (*tunnel.Conn, error) {
	if req.Target.Port == 0 {
		return nil, &tunnel.DialError{
			Upstream: d.id,
			Stage:    pluginv1.Stage_STAGE_RESOLVE,
			Reason:   pluginv1.Reason_REASON_UNREACHABLE,
			Message:  fmt.Sprintf("the target %q has no port", req.Target.Host),
			Hint:     `upstream "direct" needs a target of the form host:port`,
		}
	}
	var clock stageClock
	conn, err := d.connect(ctx, req.Target.String(), clock.enter)
	stage, stages := clock.stop()
	if err != nil {
		return nil, d.failed(ctx, stage, stages, err)
	}
	conn.Path, conn.Stages = pluginv1.DataPath_DATA_PATH_DIRECT, stages
	return conn, nil
}

// failed is the error of a dial that came as far as stage.
func (d direct) failed(ctx context.Context, stage pluginv1.Stage, stages []tunnel.StageTime, err error) *tunnel.DialError {
	m := neterr.ClassifyAt(stage, err)
	e := &tunnel.DialError{
		Upstream:  d.id,
		Stage:     stage,
		Reason:    m.Reason,
		Retryable: m.Retryable,
		Message:   err.Error(),
		Hint:      m.Hint,
		Stages:    stages,
		Err:       err,
	}
	if ctx.Err() != nil {
		e.Message = fmt.Sprintf("%v (%v)", err, context.Cause(ctx))
	}
	var explained *neterr.Explained
	if errors.As(err, &explained) {
		e.RetryAfter = explained.RetryAfter
	}
	return e
}

// connect makes the connection: a bare socket, unless a proxy has to be spoken to.
func (d direct) connect(ctx context.Context, address string, enter func(pluginv1.Stage)) (*tunnel.Conn, error) {
	if !d.via.IsZero() {
		return d.through(ctx, address, enter)
	}
	race := outbound.Race[*bare.Socket]{
		Bind:    d.bind,
		Enter:   enter,
		Attempt: bare.Dialer{Options: d.socket, Bind: d.bind}.Dial,
		Discard: (*bare.Socket).Close,
	}
	socket, err := race.Connect(ctx, address)
	if err != nil {
		return nil, err
	}
	return &tunnel.Conn{End: tunnel.End{Socket: socket}}, nil
}

// through connects by way of the proxy.
func (d direct) through(ctx context.Context, address string, enter func(pluginv1.Stage)) (*tunnel.Conn, error) {
	dialer := outbound.Dialer{Socket: d.socket, Bind: d.bind, Via: d.via}
	conn, err := dialer.Dial(ctx, address, enter)
	if err != nil {
		return nil, err
	}
	if tcp, ok := bare.Under(conn).(*net.TCPConn); ok && !d.socket.Nodelay {
		if err := tcp.SetNoDelay(false); err != nil {
			_ = conn.Close() // the first error says more
			return nil, err
		}
	}
	return &tunnel.Conn{End: tunnel.End{Stream: conn}}, nil
}
