package listen

import (
	"context"

	"github.com/tunneld/tunneld/core/internal/tunnel"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

var tcpKind = Kind{
	Name:    KindTCP,
	Summary: "all connections go to one target",
	Attributes: []*pluginv1.Attribute{
		{Name: "target", Type: &pluginv1.Type{Kind: pluginv1.Kind_KIND_STRING}, Required: true},
	},
	New: func(s Settings) Protocol { return &tcpProtocol{s.Target} },
}

// tcpProtocol has nothing to say: all clients go to one target, and are reset
// where there is no way to it.
type tcpProtocol struct{ target tunnel.Target }

func (*tcpProtocol) Asks() bool { return false }

func (p *tcpProtocol) Learn(context.Context, *Conn) (Request, *Failure) {
	return Request{Target: p.target, Responder: p}, nil
}

func (*tcpProtocol) Ready(_ context.Context, c *Conn) (tunnel.End, error) { return c.End(), nil }

func (*tcpProtocol) Refuse(_ context.Context, c *Conn, _ *tunnel.DialError) { c.Reset() }
