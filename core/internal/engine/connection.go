package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strconv"
	"time"

	"github.com/tunneld/tunneld/core/internal/listen"
	"github.com/tunneld/tunneld/core/internal/metrics"
	"github.com/tunneld/tunneld/core/internal/route"
	"github.com/tunneld/tunneld/core/internal/splice"
	"github.com/tunneld/tunneld/core/internal/tunnel"
	"github.com/tunneld/tunneld/internal/bare"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// connection is one client from accept to its access-log line. Its tunnel holds
// on to it, so it is small: what only the dial needs is a dial's.
type connection struct {
	engine   *Engine
	listener *listener
	id       uint64
	start    time.Duration // since the engine's
	source   netip.AddrPort
	user     string // who the client has shown to be; empty: nobody
	target   tunnel.Target
	route    string
	upstream string
	stages   []tunnel.StageTime // of the dial that made the tunnel
	counts   *metrics.Tunnel    // of the tunnel
	path     tunnel.Path
	counted  bool  // among those of its user
	gate     *gate // of the upstream, in which the tunnel has a place
}

// handle takes a connection that was just accepted. It does not block.
func (e *Engine) handle(on *listening, raw *bare.Socket, peer netip.AddrPort) {
	g := e.hold()
	if g == nil {
		raw.Reset()
		return
	}
	l, ok := g.listeners[on]
	if !ok {
		// Accepted while a reload took the listener away.
		g.release()
		raw.Reset()
		return
	}
	if list := l.barrier(peer.Addr()); list != "" {
		g.release()
		e.shutOut(l, raw, peer, list)
		return
	}
	c := &connection{
		engine:   e,
		listener: l,
		id:       e.ids.Add(1),
		start:    time.Since(e.began),
		source:   peer,
		target:   l.Target,
	}
	ctx, h := e.dialing, (*handshake)(nil)
	if l.Protocol.Asks() || l.tls != nil {
		h = &handshake{slots: l.slots, source: peer.Addr(), number: c.id}
		ctx, h.yield = context.WithCancelCause(ctx)
	}
	yielded, over := e.slots.take(l.slots, l.Limits, peer.Addr(), h)
	for _, y := range yielded {
		y.yield(errYielded)
	}
	if over != nil {
		g.release()
		if h != nil {
			h.yield(nil)
		}
		c.turnedAway(raw, over)
		return
	}
	e.metrics.Accepted(l.id)
	e.connections.Go(func() {
		c.run(ctx, g, raw, h)
		if h != nil {
			h.yield(nil)
		}
	})
}

// turnedAway ends a connection beyond a limit.
func (c *connection) turnedAway(raw *bare.Socket, over *overLimit) {
	if over == errListenerGone {
		raw.Reset()
		return
	}
	c.engine.metrics.Refused(c.listener.id, over.limit)
	err := c.refused(over)
	if c.listener.tls != nil {
		raw.Reset() // a word takes a handshake, and what that costs
		return
	}
	c.engine.refuse(c, raw, err)
}

// done gives the connection's slot back. It comes before the line of the log:
// who reads that may count on it. h is nil where the handshake is over.
func (c *connection) done(h *handshake) {
	c.uncountUser()
	c.engine.slots.give(c.listener.slots, c.source.Addr(), h)
	c.leaveGate()
	c.engine.metrics.Closed(c.listener.id)
}

func (c *connection) leaveGate() {
	if c.gate != nil {
		c.gate.leave()
		c.gate = nil
	}
}

// name is the connection's id in the log and towards plugins.
func (c *connection) name() string { return "c" + strconv.FormatUint(c.id, 36) }

// maxRefusals bounds the clients beyond a limit that are told so at one time; the
// others are reset. They hold no slot, and a word to them takes a while.
const maxRefusals = 64

func (e *Engine) refuse(c *connection, raw *bare.Socket, err *tunnel.DialError) {
	if e.refusals.Add(1) > maxRefusals {
		e.refusals.Add(-1)
		raw.Reset()
		return
	}
	e.connections.Go(func() {
		defer e.refusals.Add(-1)
		listen.Refuse(e.dialing, c.listener.Protocol, listen.NewConn(raw), c.asks(nil), err)
	})
}

// run takes the connection to its tunnel, or to its refusal. A stop breaks it
// off: it does not wait for what a client has to say or to read. h is nil for a
// client that has nothing to say.
func (c *connection) run(ctx context.Context, g *generation, raw *bare.Socket, h *handshake) {
	client, handshakeErr := listen.Handshake(ctx, c.listener.Protocol, listen.NewConn(raw), c.asks(h))
	if handshakeErr == nil && client.Plain {
		g.release()
		c.serve(ctx, client, h)
		return
	}
	if handshakeErr == nil && h != nil && !c.engine.slots.learned(h) {
		client.Reset()
		handshakeErr = errYielded
	}
	if handshakeErr != nil {
		g.release()
		c.done(h)
		c.handshakeFailed(ctx, handshakeErr)
		return
	}
	c.user, c.target = client.User, client.Target
	if over := c.countUser(); over != nil {
		g.release()
		c.engine.metrics.Refused(c.listener.id, over.limit)
		c.tell(ctx, client, h, c.refused(over))
		return
	}
	up, halfClose, dialErr := c.reach(ctx, g, client)
	g.release()
	if dialErr != nil {
		c.tell(ctx, client, h, dialErr)
		c.failed(dialErr)
		return
	}
	c.opened(up)
	end, err := client.Ready(ctx)
	if err != nil {
		up.Abandon(err.Error())
		gone := tunnel.CloseClientReset
		if ctx.Err() != nil {
			gone, err = tunnel.CloseKilled, errStopping
		}
		c.ended(splice.Result{Reason: gone, Err: err})
		return
	}
	c.pump(end, up.End, halfClose, c.ended)
}

// opened counts the tunnel.
func (c *connection) opened(up *tunnel.Conn) {
	c.path, c.stages = up.Path, up.Stages
	c.counts = c.engine.metrics.Tunnel(metrics.TunnelKey{Listener: c.listener.id, Route: c.route, Upstream: c.upstream, Path: up.Path})
	c.counts.Opened()
}

// pump has the bytes of the tunnel moved.
func (c *connection) pump(client, up tunnel.End, halfClose time.Duration, done func(splice.Result)) {
	c.engine.pump.Start(splice.Tunnel{
		Client:   client,
		Upstream: up,
		Timeouts: splice.Timeouts{
			Idle:      c.listener.Timeout.Idle,
			HalfClose: halfClose,
			Lifetime:  c.listener.Timeout.Lifetime,
		},
		Traffic: c.counts.Traffic(),
		Done:    done,
	})
}

// countUser counts the connection among those of its user, if it has one, or says which
// limit is in the way.
func (c *connection) countUser() *overLimit {
	if c.user == "" {
		return nil
	}
	over := c.engine.slots.takeUser(c.listener.slots, c.listener.Limits, c.user)
	c.counted = over == nil
	return over
}

func (c *connection) uncountUser() {
	if c.counted {
		c.counted = false
		c.engine.slots.giveUser(c.listener.slots, c.user)
	}
}

// tell tells a client that was heard why it gets no tunnel, and gives its slot back. How
// long that takes is up to the client: its user need not wait for it to try again.
func (c *connection) tell(ctx context.Context, client *listen.Client, h *handshake, err *tunnel.DialError) {
	c.uncountUser()
	if h != nil {
		c.engine.slots.waits(h)
	}
	client.Refuse(ctx, err)
	c.done(h)
}

// reach dials what the client asks for, as dial does.
func (c *connection) reach(ctx context.Context, g *generation, client *listen.Client) (*tunnel.Conn, time.Duration, *tunnel.DialError) {
	if client.Denied != nil {
		return nil, 0, client.Denied
	}
	to, err := c.find(g)
	if err != nil {
		return nil, 0, err
	}
	ctx, stop := client.Watch(ctx)
	defer stop()
	return c.dial(ctx, to)
}

// find returns the route.
func (c *connection) find(g *generation) (routing, *tunnel.DialError) {
	n, ok := g.table.Find(route.Connection{Listener: c.listener.id, Source: c.source.Addr(), User: c.user, Target: c.target})
	if !ok {
		return routing{}, &tunnel.DialError{
			Stage:   pluginv1.Stage_STAGE_REQUEST,
			Reason:  pluginv1.Reason_REASON_DENIED,
			Message: fmt.Sprintf("no route matches %s on listener %s", c.target.Shown(), c.listener.id),
			Hint:    "add a route whose match block takes this listener, client, user, host and port, or one without a match block at the end",
		}
	}
	c.route = g.routes[n].name
	return g.routes[n], nil
}

// dial tries the upstreams of a route in order, as long as each error is retryable and the
// listener's time for dialing is not over. It also returns half_close of the tunnel, as far
// as the pump keeps it.
func (c *connection) dial(ctx context.Context, to routing) (*tunnel.Conn, time.Duration, *tunnel.DialError) {
	upstreams := choose(to.upstreams, time.Now())
	var deadline time.Time
	if d := c.listener.Timeout.Dial; d > 0 {
		deadline = time.Now().Add(d)
	}
	want := tunnel.Dial{
		Target:     c.target,
		Source:     c.source.String(),
		Listener:   c.listener.id,
		Route:      c.route,
		Connection: c.name(),
		Socket:     c.listener.Socket,
		Allow:      c.listener.allow,
	}
	var last *tunnel.DialError
	for i, u := range upstreams {
		if last != nil {
			c.engine.repeats.write(slog.LevelInfo, repeatKey{message: "upstream failed, the next is tried", listener: c.listener.id, reason: last.Reason.Text()},
				func() []any { return append(c.attrs(), failureAttrs(last)...) })
		}
		c.upstream = u.id
		var halfClose time.Duration
		want.HalfClose, halfClose = u.patience(c.listener.Timeout.HalfClose)
		until := share(deadline, upstreams[i:])
		u.availability.tried(time.Now())
		conn, err := c.attempt(ctx, u, want, until)
		if err != nil && errors.Is(err, tunnel.ErrPluginDied) && !overdue(until) {
			// It was not the far end's fault, and the plugin is being started
			// again: once more, so that its death costs no new connection.
			conn, err = c.attempt(ctx, u, want, until)
		}
		u.availability.dialed(time.Now(), err)
		if err == nil {
			c.gate = u.gate
			return conn, halfClose, nil
		}
		last = err
		if !err.Retryable || ctx.Err() != nil || overdue(deadline) {
			break
		}
	}
	return nil, 0, last
}

const (
	// leastShare is the least time that an upstream gets before the next is tried, as
	// long as there is that much.
	leastShare = 2 * time.Second
	// usualAnswer stands for the time that an upstream gives its far end to answer, where
	// that is not known. It is the default of plugins.
	usualAnswer = 10 * time.Second
)

// share divides what is left of the time among the upstreams that are left, so that one
// that hangs leaves the next a chance: evenly, but such that each far end has its own time
// to answer, since its own answer says most. If there is too little for all of them, the
// first gets it as far as the others keep leastShare each. Zero: no limit.
func share(deadline time.Time, left []upstream) time.Time {
	rest := time.Until(deadline)
	if deadline.IsZero() || len(left) <= 1 || rest <= 0 {
		return deadline
	}
	even := rest / time.Duration(len(left))
	wants := func(u upstream) time.Duration {
		if u.answer == 0 {
			return min(even, usualAnswer)
		}
		return min(rest, max(u.answer, leastShare))
	}
	own, most := wants(left[0]), rest
	for _, u := range left[1:] {
		most -= wants(u)
	}
	if own > most {
		most = rest - time.Duration(len(left)-1)*leastShare
		own = min(own, most)
	}
	return time.Now().Add(min(rest, max(own, min(even, most), leastShare)))
}

func overdue(deadline time.Time) bool { return !deadline.IsZero() && time.Until(deadline) <= 0 }

// overtimeError says whose time for dialing is over, and how much of it one
// upstream got.
type overtimeError struct {
	listener *listener
	share    time.Duration
}

func (e *overtimeError) Error() string {
	text := fmt.Sprintf("listener %s allows %s for dialing", e.listener.id, e.listener.Timeout.Dial)
	if share := e.share.Round(10 * time.Millisecond); share < e.listener.Timeout.Dial.Round(10*time.Millisecond) {
		text += fmt.Sprintf(", %s of it were this upstream's", share)
	}
	return text
}

func (e *overtimeError) Unwrap() error { return context.DeadlineExceeded }

// attempt asks one upstream, once. With the connection, it holds a place in the
// upstream's gate.
func (c *connection) attempt(ctx context.Context, u upstream, want tunnel.Dial, deadline time.Time) (*tunnel.Conn, *tunnel.DialError) {
	if !deadline.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadlineCause(ctx, deadline, &overtimeError{c.listener, time.Until(deadline)})
		defer cancel()
	}
	start := time.Now()
	typed := u.gate.enter(ctx)
	if typed == nil {
		start = time.Now()
		conn, err := u.dialer.Dial(ctx, want)
		if err == nil {
			c.engine.metrics.Dialed(u.id, time.Since(start), conn.Stages, nil)
			return conn, nil
		}
		u.gate.leave()
		typed = asDialError(u.id, err)
	}
	switch cause := context.Cause(ctx); {
	case errors.Is(cause, errStopping):
		typed.Message, typed.Hint, typed.Told = errStopping.Error(), "try again once it has restarted", nil
	case errors.Is(cause, listen.ErrLeft):
		typed.Reason, typed.Message, typed.Hint = pluginv1.Reason_REASON_CANCELED, listen.ErrLeft.Error(), ""
	}
	c.engine.metrics.Dialed(u.id, time.Since(start), typed.Stages, typed)
	return nil, typed
}

// asDialError is the error of a dialer, which may not be typed.
func asDialError(upstream string, err error) *tunnel.DialError {
	var typed *tunnel.DialError
	if !errors.As(err, &typed) {
		typed = &tunnel.DialError{
			Stage:     pluginv1.Stage_STAGE_CONNECT,
			Reason:    pluginv1.Reason_REASON_UNAVAILABLE,
			Retryable: true,
			Message:   err.Error(),
			Err:       err,
		}
	}
	if typed.Upstream == "" {
		typed.Upstream = upstream
	}
	return typed
}
