package engine

import (
	"context"
	"fmt"
	"net"
	"net/http/httptrace"
	"time"

	"github.com/tunneld/tunneld/core/internal/tunnel"
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
			Reason:   pluginv1.Reason_REASON_NOT_FOUND,
			Message:  fmt.Sprintf("the target %q has no port", req.Target.Host),
			Hint:     `upstream "direct" needs a target of the form host:port`,
		}
	}
	clock := stageClock{stage: pluginv1.Stage_STAGE_RESOLVE, entered: time.Now()}
	traced := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		ConnectStart: func(string, string) { clock.enter(pluginv1.Stage_STAGE_CONNECT) },
	})
	c, err := d.socket.Dialer().DialContext(traced, "tcp", req.Target.String())
	if err == nil && !d.socket.Nodelay {
		if err = c.(*net.TCPConn).SetNoDelay(false); err != nil {
			_ = c.Close() // the first error says more
		}
	}
	stage, stages := clock.stop()
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
			Stages:    stages,
			Err:       err,
		}
	}
	return &tunnel.Conn{
		Stream: c,
		Path:   pluginv1.DataPath_DATA_PATH_DIRECT,
		Local:  c.LocalAddr().String(),
		Remote: c.RemoteAddr().String(),
		Stages: stages,
	}, nil
}
