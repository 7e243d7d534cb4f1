package engine

import (
	"container/heap"
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"time"

	"github.com/tunneld/tunneld/core/internal/listen"
)

// handshake is a client that has been accepted and whose target is not known yet.
type handshake struct {
	slots  *listenerSlots
	source netip.Addr
	number uint64                  // ascending with the time of the accept
	yield  context.CancelCauseFunc // breaks the handshake off

	from       *origin // nil: it is not waiting
	prev, next *handshake
	yielded    bool // its places were given to another
}

// errYielded ends a handshake that has made room.
var errYielded = errors.New("it gave way to a newer client: too many were in their handshake, and most of these from its address or network")

// waiting are the handshakes of a listener.
type waiting struct {
	origins map[netip.Prefix]*origin
	most    origins
}

// origin is a source of handshakes: an IPv4 address or an IPv6 network of /64,
// which is what one client is commonly given.
type origin struct {
	net            netip.Prefix
	oldest, newest *handshake
	count          int
	index          int // in origins
}

// origins is a heap: the first is the one with most handshakes, and of those the
// one whose oldest is the oldest.
type origins []*origin

func (o origins) Len() int { return len(o) }

func (o origins) Less(i, j int) bool {
	if o[i].count != o[j].count {
		return o[i].count > o[j].count
	}
	return o[i].oldest.number < o[j].oldest.number
}

func (o origins) Swap(i, j int) {
	o[i], o[j] = o[j], o[i]
	o[i].index, o[j].index = i, j
}

// Push implements heap.Interface.
func (o *origins) Push(x any) {
	x.(*origin).index = len(*o)
	*o = append(*o, x.(*origin))
}

// Pop implements heap.Interface.
func (o *origins) Pop() any {
	last := len(*o) - 1
	x := (*o)[last]
	(*o)[last] = nil
	*o = (*o)[:last]
	return x
}

func originOf(source netip.Addr) netip.Prefix {
	bits := source.BitLen()
	if source.Is6() {
		bits = 64
	}
	p, _ := source.WithZone("").Prefix(bits) // bits are never too many
	return p
}

func (w *waiting) add(h *handshake) {
	net := originOf(h.source)
	o := w.origins[net]
	if o == nil {
		if w.origins == nil {
			w.origins = map[netip.Prefix]*origin{}
		}
		o = &origin{net: net, oldest: h, newest: h, count: 1}
		h.from = o
		w.origins[net] = o
		heap.Push(&w.most, o)
		return
	}
	h.from, h.prev = o, o.newest
	o.newest.next, o.newest = h, h
	o.count++
	heap.Fix(&w.most, o.index)
}

func (w *waiting) remove(h *handshake) {
	o := h.from
	if h.prev != nil {
		h.prev.next = h.next
	} else {
		o.oldest = h.next
	}
	if h.next != nil {
		h.next.prev = h.prev
	} else {
		o.newest = h.prev
	}
	h.from, h.prev, h.next = nil, nil, nil
	if o.count--; o.count > 0 {
		heap.Fix(&w.most, o.index)
		return
	}
	// The heap compares what is left with others while it is being removed.
	o.oldest = h
	heap.Remove(&w.most, o.index)
	delete(w.origins, o.net)
}

// first is who gives way first: the oldest of the source that has most; nil: there
// is nobody.
func (w *waiting) first() *handshake {
	if len(w.most) == 0 {
		return nil
	}
	return w.most[0].oldest
}

// tellEach is how often the log tells of handshakes that gave way, for each
// listener.
const tellEach = time.Minute

// listenerSlots is what the slots know of a listener. It outlives the generations.
type listenerSlots struct {
	connections, handshakes part
	waiting                 waiting
	life                    life // draining: no configuration has it any more

	yielded int       // not logged yet
	logged  time.Time // last
}

// note counts a handshake that gave way. It returns how many to
// log now, or 0.
func (p *listenerSlots) note(now time.Time) int {
	if p.yielded++; now.Sub(p.logged) < tellEach {
		return 0
	}
	n := p.yielded
	p.yielded, p.logged = 0, now
	return n
}

// handshakeFailed counts and logs a client that did not get as far as a target.
func (c *connection) handshakeFailed(ctx context.Context, err error) {
	level, reason := slog.LevelWarn, listen.Reason(err)
	switch {
	case errors.Is(context.Cause(ctx), errYielded):
		level, reason, err = slog.LevelDebug, "yielded", errYielded
		c.engine.metrics.HandshakeYielded(c.listener.id)
		if n := c.engine.slots.note(c.listener.slots); n > 0 {
			c.engine.log.Warn("clients in their handshake gave way to newer ones", "listener", c.listener.id, "clients", n,
				"hint", "find out who connects and stays silent, lower timeouts.handshake of the listener, or raise daemon.max_connections")
		}
	case errors.Is(err, listen.ErrNothing):
		c.engine.metrics.Probed(c.listener.id)
		c.noFailure("client left without sending anything")
		return
	case errors.Is(err, listen.ErrAsked):
		c.engine.metrics.LoginAsked(c.listener.id)
		c.noFailure("client asked for user and password")
		return
	case ctx.Err() != nil:
		level, reason, err = slog.LevelInfo, "stopping", errStopping // the client did nothing wrong
	}
	var login *listen.LoginError
	if errors.As(err, &login) {
		c.user = login.User
		c.engine.metrics.LoginFailed(c.listener.id, login.Unchecked == nil)
	}
	c.engine.metrics.HandshakeFailed(c.listener.id)
	c.engine.repeats.write(level, repeatKey{message: "client handshake failed", listener: c.listener.id, reason: reason}, func() []any {
		attrs := []any{"conn", c.name(), "listener", c.listener.id, "client", c.source.String()}
		if c.user != "" {
			attrs = append(attrs, "user", shownUser(c.user))
		}
		attrs = append(attrs, "reason", reason, "err", err)
		if hint := listen.Hint(err); hint != "" {
			attrs = append(attrs, "hint", hint)
		}
		return attrs
	})
}

// noFailure logs the end of a handshake that is ordinary: whoever watches the port leaves
// without a word, every few seconds, and HTTP clients come first without a password.
func (c *connection) noFailure(message string) {
	c.engine.repeats.write(slog.LevelDebug, repeatKey{message: message, listener: c.listener.id}, func() []any {
		return []any{"conn", c.name(), "listener", c.listener.id, "client", c.source.String()}
	})
}
