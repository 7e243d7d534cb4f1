package engine

import (
	"fmt"
	"log/slog"
	"net/netip"

	"github.com/tunneld/tunneld/internal/bare"
)

// The lists of a listener that keep a client out, as the configuration names them.
const (
	byAllow = "allow"
	byDeny  = "deny"
)

// barrier is the list that keeps clients with an address out; empty: none. Of a unix
// socket the mode has let them in, and they have no address.
func (l *listener) barrier(source netip.Addr) string {
	switch {
	case !source.IsValid():
	case l.Deny.Contains(source):
		return byDeny
	case !l.Allow.IsEmpty() && !l.Allow.Contains(source):
		return byAllow
	}
	return ""
}

// shutOut counts, logs and resets a client that a list of its listener keeps out. It is
// cheap, since anybody can connect again and again.
func (e *Engine) shutOut(l *listener, raw *bare.Socket, peer netip.AddrPort, list string) {
	e.metrics.Refused(l.id, list)
	e.repeats.write(slog.LevelInfo, repeatKey{message: "client may not come in", listener: l.id, reason: list}, func() []any {
		err, hint := "allow of the listener does not have %s", "if it may come in, add its address or network to allow"
		if list == byDeny {
			err, hint = "deny of the listener has %s", "if it may come in, take its address or network out of deny"
		}
		return []any{"listener", l.id, "client", peer.String(), "reason", list, "err", fmt.Sprintf(err, peer.Addr()), "hint", hint}
	})
	raw.Reset()
}
