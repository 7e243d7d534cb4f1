package config

import (
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/tunneld/tunneld/core/internal/listen"
	"github.com/tunneld/tunneld/core/internal/tunnel"
	"github.com/tunneld/tunneld/internal/schema"
)

func (p *parser) listener(v schema.Values, b *hclsyntax.Block) {
	limits, timeouts, tcp := v.Block("limits"), v.Block("timeouts"), v.Block("tcp")
	l := Listener{
		Kind:      b.Labels[0],
		Name:      b.Labels[1],
		Addresses: []string{v.Text("address")},
		Limits:    Limits{MaxConnections: limits.Int("max_connections"), MaxPerSource: limits.Int("max_per_source")},
		Timeout: Timeouts{
			Handshake: timeouts.Duration("handshake"),
			Dial:      timeouts.Duration("dial"),
			Idle:      timeouts.Duration("idle"),
			HalfClose: timeouts.Duration("half_close"),
			Lifetime:  timeouts.Duration("lifetime"),
		},
		Socket:  socket(tcp),
		Backlog: tcp.Int("backlog"),
		Open:    v.Bool("open"),
	}
	if addr, ok := p.address(b, "listener."+l.ID(), v); ok && addr.fd == "" && !addr.loopback() && !l.Open {
		p.errorAt(locate(b, "address"), OpenSummary, OpenDetail)
	}
	if written, given := v["target"].(string); given {
		target, problem := parseTarget(written)
		if problem != "" {
			p.errorAt(locate(b, "target"), `Wrong value for "target"`, problem)
		}
		l.Target = target
	}
	p.listenerTimes(l.Timeout, b)
	kind, _ := listen.FindKind(l.Kind) // the header was checked
	l.Protocol = kind.New(listen.Settings{Target: l.Target, Values: v})
	p.cfg.Listeners = append(p.cfg.Listeners, l)
}

func socket(v schema.Values) tunnel.SocketOptions {
	return tunnel.SocketOptions{
		Nodelay:           v.Bool("nodelay"),
		KeepaliveIdle:     v.Duration("keepalive_idle"),
		KeepaliveInterval: v.Duration("keepalive_interval"),
		KeepaliveCount:    v.Int("keepalive_count"),
		UserTimeout:       v.Duration("user_timeout"),
	}
}
