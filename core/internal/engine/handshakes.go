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
	slots   *listenerSlots
	source  netip.Addr
	number  uint64                  // ascending with the time of the accept
	yield   context.CancelCauseFunc // breaks the handshake off
	yielded bool                    // its places were given to another

	place  link // among those that have a place
	memory link // among those that hold memory for what their client sends
}

// errYielded ends a handshake that has made room.
var errYielded = errors.New("it gave way to a newer client: too many were in their handshake, and most of these from its address or network")

// link is a handshake among others that have some of the same thing.
type link struct {
	of         *handshake
	weight     int     // how much it has
	from       *origin // nil: it is not among them
	prev, next *link
}

// waiting are the handshakes of a listener that have some of one thing.
type waiting struct {
	origins map[netip.Prefix]*origin
	most    origins
	weight  int // all that they have
}

// origin is a source of handshakes: an IPv4 address or an IPv6 network of /64,
// which is what one client is commonly given.
type origin struct {
	net            netip.Prefix
	oldest, newest *link
	weight         int
	index          int // in origins
}

// origins is a heap: the first is the one that has most, and of those the one whose
// oldest handshake is the oldest.
type origins []*origin

func (o origins) Len() int { return len(o) }

func (o origins) Less(i, j int) bool {
	if o[i].weight != o[j].weight {
		return o[i].weight > o[j].weight
	}
	return o[i].oldest.of.number < o[j].oldest.of.number
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

// add gives l, which is of h, that much; it may have some already.
func (w *waiting) add(l *link, h *handshake, weight int) {
	w.weight += weight
	l.weight += weight
	if l.from != nil {
		l.from.weight += weight
		heap.Fix(&w.most, l.from.index)
		return
	}
	l.of = h
	net := originOf(h.source)
	o := w.origins[net]
	if o == nil {
		if w.origins == nil {
			w.origins = map[netip.Prefix]*origin{}
		}
		o = &origin{net: net, oldest: l, newest: l, weight: weight}
		l.from = o
		w.origins[net] = o
		heap.Push(&w.most, o)
		return
	}
	l.from, l.prev = o, o.newest
	o.newest.next, o.newest = l, l
	o.weight += weight
	heap.Fix(&w.most, o.index)
}

func (w *waiting) remove(l *link) {
	o := l.from
	if l.prev != nil {
		l.prev.next = l.next
	} else {
		o.oldest = l.next
	}
	if l.next != nil {
		l.next.prev = l.prev
	} else {
		o.newest = l.prev
	}
	w.weight -= l.weight
	o.weight -= l.weight
	if o.oldest != nil {
		heap.Fix(&w.most, o.index)
	} else {
		// The heap compares what is left with others while it is being removed.
		o.oldest = l
		heap.Remove(&w.most, o.index)
		delete(w.origins, o.net)
	}
	*l = link{}
}

// first is who gives way first: the oldest of the source that has most; nil: there
// is nobody.
func (w *waiting) first() *handshake {
	if len(w.most) == 0 {
		return nil
	}
	return w.most[0].oldest.of
}

// tellEach is how often the log tells of handshakes that gave way, for each
// listener.
const tellEach = time.Minute

// listenerSlots is what the slots know of a listener. It outlives the generations.
type listenerSlots struct {
	connections, handshakes part
	waiting                 waiting // each has one place
	holding                 waiting // those that hold memory for what their client sends, in bytes
	life                    life    // draining: no configuration has it any more

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

// asks are what the listener asks of the client, whose handshake is h.
func (c *connection) asks(h *handshake) listen.HandshakeOptions {
	o := listen.HandshakeOptions{Timeout: c.listener.Timeout.Handshake}
	if c.listener.tls != nil {
		o.TLS = &listen.TLSOptions{
			Server: c.listener.tls,
			Ends:   c.listener.TLS.Ends(),
		}
	}
	if h != nil {
		o.Hold = func(bytes int) error { return c.hold(h, bytes) }
	}
	o.Login = c.login()
	return o
}

// login checks users and their passwords; nil: nobody is asked.
func (c *connection) login() listen.Login {
	realm, from := c.listener.realm, originOf(c.source.Addr())
	if realm == nil {
		return nil
	}
	return func(ctx context.Context, user, password string) (bool, error) {
		return realm.Check(ctx, from, user, password)
	}
}

// hold takes memory for the handshake, and breaks those off that give way.
func (c *connection) hold(h *handshake, bytes int) error {
	yielded, ok := c.engine.slots.hold(h, bytes)
	for _, y := range yielded {
		y.yield(errYielded)
	}
	if !ok {
		return errYielded
	}
	return nil
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
	user := c.user
	if errors.As(err, &login) {
		user = login.User
		c.engine.metrics.LoginFailed(c.listener.id, login.Unchecked == nil)
	}
	c.engine.metrics.HandshakeFailed(c.listener.id, reason)
	c.engine.repeats.write(level, repeatKey{message: "client handshake failed", listener: c.listener.id, reason: reason}, func() []any {
		attrs := []any{"conn", c.name(), "listener", c.listener.id, "client", c.source.String()}
		if user != "" {
			attrs = append(attrs, "user", shownUser(user))
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
