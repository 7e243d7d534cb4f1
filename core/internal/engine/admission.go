package engine

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"

	"github.com/tunneld/tunneld/core/internal/listen"
)

// The lists of a listener that keep a client out, as the configuration names them.
const (
	byAllow = "allow"
	byDeny  = "deny"
)

// barrier is the list that keeps clients with an address out; empty: none.
func (l *listener) barrier(source netip.Addr) string {
	switch {
	case l.Deny.Contains(source):
		return byDeny
	case !l.Allow.IsEmpty() && !l.Allow.Contains(source):
		return byAllow
	}
	return ""
}

// shutOut counts, logs and resets a client that a list of its listener keeps out. It is
// cheap, since anybody can connect again and again. named are the attributes that name the
// client.
func (e *Engine) shutOut(l *listener, conn *listen.Conn, source netip.Addr, named []any, list string) {
	e.metrics.Refused(l.id, list)
	e.repeats.write(slog.LevelInfo, repeatKey{message: "client may not come in", listener: l.id, reason: list}, func() []any {
		err, hint := "allow of the listener does not have %s", "if it may come in, add its address or network to allow"
		if list == byDeny {
			err, hint = "deny of the listener has %s", "if it may come in, take its address or network out of deny"
		}
		return slices.Concat([]any{"listener", l.id}, named, []any{"reason", list, "err", fmt.Sprintf(err, source), "hint", hint})
	})
	conn.Reset()
}

// proxied is what is known of a connection that a load balancer passes on.
type proxied struct {
	by    netip.AddrPort // the load balancer
	heard bool           // its header
	to    netip.AddrPort // where its client has connected to; zero: it has not said so
}

// admit learns from the load balancer whose connection it passes on, and decides then what
// handle decides at once of others. False: the connection has ended.
func (c *connection) admit(ctx context.Context, conn *listen.Conn, h *handshake) bool {
	header, err := conn.Announced(ctx, c.listener.Timeout.Handshake)
	if err != nil {
		c.done(h)
		c.handshakeFailed(ctx, err)
		return false
	}
	c.proxied.heard = true
	if !header.IsLocal() {
		c.source, c.proxied.to = header.Source, header.Destination
	}
	if list := c.listener.barrier(c.source.Addr()); list != "" {
		c.done(h)
		c.engine.shutOut(c.listener, conn, c.source.Addr(), c.clientAttrs(), list)
		return false
	}
	over, ok := c.engine.slots.identify(h, c.listener.Limits, c.source.Addr())
	switch {
	case !ok:
		conn.Reset()
		c.done(h)
		c.handshakeFailed(ctx, errYielded)
	case over != nil:
		c.done(h)
		c.turnedAway(conn, over)
	}
	return ok && over == nil
}
