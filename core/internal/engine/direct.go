package engine

import (
	"context"
	"fmt"
	"net"
	"net/http/httptrace"
	"net/netip"
	"time"

	"github.com/tunneld/tunneld/core/internal/tunnel"
	"github.com/tunneld/tunneld/internal/bare"
	"github.com/tunneld/tunneld/internal/neterr"
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
	start := time.Now()
	if ip, parseErr := netip.ParseAddr(to.Host); parseErr == nil {
		conn.Socket, err = bare.Dial(ctx, netip.AddrPortFrom(ip, to.Port), d.socket)
		stage = pluginv1.Stage_STAGE_CONNECT
		conn.Stages = []tunnel.StageTime{{Stage: stage, Duration: time.Since(start)}}
		return conn, stage, err
	}
	// Several addresses may be tried at once; only net knows how (RFC 8305).
	clock := stageClock{stage: pluginv1.Stage_STAGE_RESOLVE, entered: start}
	traced := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		ConnectStart: func(string, string) { clock.enter(pluginv1.Stage_STAGE_CONNECT) },
	})
	conn.Stream, err = d.socket.Dialer().DialContext(traced, "tcp", to.String())
	if err == nil && !d.socket.Nodelay {
		if err = conn.Stream.(*net.TCPConn).SetNoDelay(false); err != nil {
			_ = conn.Stream.Close() // the first error says more
		}
	}
	stage, conn.Stages = clock.stop()
	return conn, stage, err
}
