package engine

import (
	"context"
	"fmt"
	"net/netip"

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
	conn, stage, err := d.connect(ctx, req.Target)
	if err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("%w (%w)", err, context.Cause(ctx))
		}
		m := neterr.Classify(err)
		return nil, &tunnel.DialError{
			Upstream:  d.id,
			Stage:     stage,
			Reason:    m.Reason,
			Retryable: m.Retryable,
			Message:   err.Error(),
			Hint:      m.Hint,
			Stages:    conn.Stages,
			Err:       err,
		}
	}
	conn.Path = pluginv1.DataPath_DATA_PATH_DIRECT
	return &conn, nil
}

// connect returns the connection, or the stage that failed; the times of the
// stages in any case.
func (d direct) connect(ctx context.Context, to tunnel.Target) (conn tunnel.Conn, stage pluginv1.Stage, err error) {
	var clock stageClock
	race := outbound.Race[*bare.Socket]{
		Enter: clock.enter,
		Attempt: func(ctx context.Context, to netip.AddrPort) (*bare.Socket, error) {
			return bare.Dial(ctx, to, d.socket)
		},
		Discard: (*bare.Socket).Close,
	}
	conn.Socket, err = race.Connect(ctx, to.String())
	stage, conn.Stages = clock.stop()
	return conn, stage, err
}
