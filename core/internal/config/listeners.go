package config

import (
	"fmt"
	"net/netip"
	"strconv"

	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/tunneld/tunneld/core/internal/listen"
	"github.com/tunneld/tunneld/core/internal/tunnel"
	"github.com/tunneld/tunneld/internal/cidr"
	"github.com/tunneld/tunneld/internal/schema"
)

func (p *parser) listener(v schema.Values, b *hclsyntax.Block) {
	limits, timeouts, tcp := v.Block("limits"), v.Block("timeouts"), v.Block("tcp")
	l := Listener{
		Kind:   b.Labels[0],
		Name:   b.Labels[1],
		Limits: Limits{MaxConnections: limits.Int("max_connections"), MaxPerSource: limits.Int("max_per_source"), MaxPerUser: limits.Int("max_per_user"), MaxRate: limits.Int("max_rate")},
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
	if endsTLS(l.kind()) {
		l.TLS = p.listenerTLS(v, b)
	}
	known := p.auth(&l, v, b)
	known = p.clients(&l, v, b) && known
	p.listens(&l, v, b, known)
	if known && l.Limits.MaxPerUser > 0 && !l.asks() {
		p.warnAt(locate(b, "limits", "max_per_user"), `"max_per_user" that counts nobody`, "The listener does not ask clients who they are: "+oneOf(l.ways(true), "", "leave it out"))
	}
	if written, given := v["target"].(string); given {
		target, problem := parseTarget(written)
		if problem != "" {
			p.errorAt(locate(b, "target"), `Wrong value for "target"`, problem)
		}
		l.Target = target
	}
	p.listenerTimes(l.Timeout, b)
	l.Bandwidth = bandwidth(v)
	p.report(l.Bandwidth.doubts(b)...)
	p.targetRules(&l, v, b)
	l.Protocol = l.kind().New(listen.Settings{Target: l.Target, Values: v})
	p.cfg.Listeners = append(p.cfg.Listeners, l)
}

// clients reads the lists of who may come in. False: they are not known.
func (p *parser) clients(l *Listener, v schema.Values, b *hclsyntax.Block) (ok bool) {
	allow, deny, ok := p.denyAllow("deny", "allow", "lets nobody in", v, b)
	l.Allow, l.Deny = cidr.NewSet(allow), cidr.NewSet(deny)
	return ok
}

// denyAllow reads two lists of networks of which the first is asked first; vain is what an
// element of the second does that the first has whole.
func (p *parser) denyAllow(denyName, allowName, vain string, v schema.Values, b *hclsyntax.Block) (allow, deny []netip.Prefix, ok bool) {
	deny, denyOK := p.networks(denyName, v, b)
	allow, allowOK := p.networks(allowName, v, b)
	denied := cidr.NewSet(deny)
	for i, network := range allow {
		if denied.Covers(network) {
			p.warnAt(locate(b, allowName, strconv.Itoa(i)), fmt.Sprintf("Element %d of %q %s", i+1, allowName, vain),
				fmt.Sprintf("%q is asked first, and has all of it. Remove it from one of the two.", denyName))
		}
	}
	return allow, deny, denyOK && allowOK
}

// networks reads a list of addresses and CIDRs. False: it is another thing, or some of its
// elements are.
func (p *parser) networks(name string, v schema.Values, b *hclsyntax.Block) (networks []netip.Prefix, ok bool) {
	ok = v[name] != nil
	for i, written := range v.List(name) {
		network, problem := cidr.Parse(written)
		if problem != "" {
			p.errorAt(locate(b, name, strconv.Itoa(i)), wrongElement(i, name), problem)
			ok = false
			continue
		}
		networks = append(networks, network)
	}
	return networks, ok
}

// wrongElement is the summary of an error about an element of a list.
func wrongElement(i int, list string) string {
	return fmt.Sprintf("Wrong value for element %d of %q", i+1, list)
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
