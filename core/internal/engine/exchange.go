package engine

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tunneld/tunneld/core/internal/listen"
	"github.com/tunneld/tunneld/core/internal/splice"
	"github.com/tunneld/tunneld/core/internal/tunnel"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// exchange is the connection of a client that sends HTTP requests, each of which finds its
// way anew: by the generation in force then, for the user that it names. It is the
// listen.Gateway of the client. See ADR 15.
type exchange struct {
	*connection
	h      *handshake
	server *listen.Server
	errand *errand              // over which the last request went, and maybe the next; nil: none
	at     atomic.Pointer[gate] // the errand's

	// Of the request under way.
	begun time.Time
	told  bool // the log has it
	fresh bool // the errand was made for it
	to    routing
	along way
	held  *generation // until it is dialed
}

// errand is a tunnel whose client is the daemon.
type errand struct {
	connection // as it was when the tunnel was made
	way
}

// way is what has to be the same if one request is to go where another has gone.
type way struct {
	generation uint64
	route      string
	user       string
	target     tunnel.Target
}

// errLifetime ends a connection that is as old as its listener lets one become.
var errLifetime = errors.New("the connection is older than timeouts.lifetime of the listener")

// serve serves a client that sends requests.
func (c *connection) serve(ctx context.Context, client *listen.Client, h *handshake) {
	if lifetime := c.listener.Timeout.Lifetime; lifetime > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, lifetime-c.age(), errLifetime)
		defer cancel()
	}
	x := &exchange{connection: c, h: h}
	x.server = client.Server(listen.ServerOptions{Gateway: x, Idle: c.listener.Timeout.Idle, Log: c.engine.log})
	leave := c.engine.exchanges.enter(x)
	err := x.server.Serve(ctx)
	leave()
	c.done(h)
	if gaveWay := errors.Is(context.Cause(ctx), errYielded); err != nil || gaveWay {
		c.handshakeFailed(ctx, err)
	}
}

// Begin implements listen.Gateway.
func (x *exchange) Begin() (listen.Login, *tunnel.DialError) {
	x.begun, x.told, x.fresh = time.Now(), false, false
	x.route, x.upstream, x.target = "", "", tunnel.Target{}
	if !x.engine.slots.learned(x.h) {
		return nil, x.denied(pluginv1.Reason_REASON_UNAVAILABLE, errYielded.Error(), "")
	}
	g := x.engine.hold()
	if g == nil {
		return nil, x.denied(pluginv1.Reason_REASON_UNAVAILABLE, errStopping.Error(), "try again once it has restarted")
	}
	defer g.release()
	l := g.listener(x.listener.id)
	if l == nil {
		return nil, x.denied(pluginv1.Reason_REASON_UNAVAILABLE, fmt.Sprintf("a reload has removed listener %s", x.listener.id), "connect to another listener")
	}
	x.listener = l
	if list := l.barrier(x.source.Addr()); list != "" {
		x.engine.metrics.Refused(l.id, list)
		return nil, x.denied(pluginv1.Reason_REASON_DENIED, fmt.Sprintf("%s of the listener keeps %s out since a reload", list, x.source.Addr()), "see allow and deny of the listener")
	}
	return x.login(), nil
}

// denied is, and logs, why a request is not passed on.
func (x *exchange) denied(reason pluginv1.Reason, message, hint string) *tunnel.DialError {
	return x.fail(&tunnel.DialError{Stage: pluginv1.Stage_STAGE_REQUEST, Reason: reason, Message: message, Hint: hint})
}

func (x *exchange) fail(err *tunnel.DialError) *tunnel.DialError {
	x.told = true
	x.failed(err)
	return err
}

// Refused implements listen.Gateway.
func (x *exchange) Refused(ctx context.Context, err error) {
	x.told = true
	x.handshakeFailed(ctx, err)
}

// Route implements listen.Gateway.
func (x *exchange) Route(a listen.Asked) (kept bool, refusal *tunnel.DialError) {
	g := x.engine.hold()
	if g == nil {
		return false, x.denied(pluginv1.Reason_REASON_UNAVAILABLE, errStopping.Error(), "try again once it has restarted")
	}
	defer func() {
		if kept || refusal != nil {
			g.release()
		} else {
			x.held = g
		}
	}()
	x.target = a.Target
	if x.user != a.User {
		x.uncountUser()
		x.user = a.User
	}
	if !x.counted {
		if over := x.countUser(); over != nil {
			x.engine.metrics.Refused(x.listener.id, over.limit)
			x.told = true
			return false, x.refused(over)
		}
	}
	if a.Denied != nil {
		return false, x.fail(a.Denied)
	}
	if x.to, refusal = x.find(g); refusal != nil {
		return false, x.fail(refusal)
	}
	x.along = way{g.number, x.to.name, a.User, a.Target}
	if kept = a.Kept && x.errand.way == x.along; kept {
		x.upstream = x.errand.upstream
	}
	return kept, nil
}

// Dial implements listen.Gateway.
func (x *exchange) Dial(ctx context.Context) (listen.Upstream, *tunnel.DialError) {
	defer x.held.release()
	up, halfClose, err := x.dial(ctx, x.to)
	if err != nil {
		return nil, x.fail(err)
	}
	end, err := x.send(up, halfClose)
	if err != nil {
		return nil, x.fail(err)
	}
	return end, nil
}

// send makes a tunnel of an upstream's connection, and returns the daemon's end of it.
func (x *exchange) send(up *tunnel.Conn, halfClose time.Duration) (listen.Upstream, *tunnel.DialError) {
	own, pumps, err := newOwnEnd(x.upstream)
	if err != nil {
		up.Abandon(err.Error())
		x.leaveGate()
		return nil, &tunnel.DialError{Stage: pluginv1.Stage_STAGE_CONNECT, Reason: pluginv1.Reason_REASON_UNAVAILABLE, Message: err.Error(), Hint: listen.Hint(err), Err: err}
	}
	e := &errand{connection: *x.connection, way: x.along}
	x.gate = nil // the errand's
	e.start = time.Since(e.engine.began)
	e.opened(up)
	e.pump(pumps, up.End, halfClose, func(r splice.Result) {
		e.leaveGate()
		e.closed(r)
		own.over(r)
	})
	x.errand, x.fresh = e, true
	x.at.Store(e.gate)
	return own, nil
}

// End implements listen.Gateway.
func (x *exchange) End(o listen.Exchange) (keep bool) {
	x.engine.metrics.Requested(x.listener.id, o.Status)
	keep = x.errand != nil && !x.at.Load().crowded()
	if x.told || !x.listener.access {
		return keep
	}
	attrs := x.attrs()
	if x.upstream != "" {
		attrs = append(attrs, "path", x.errand.path.Text())
	}
	if x.fresh {
		attrs = append(attrs, stageAttrs(x.errand.stages)...)
	}
	attrs = append(attrs,
		"method", shownText(o.Method, maxMethodShown),
		"url", shownText(o.URL, maxURLShown),
		"status", o.Status,
		"bytes_up", o.Up,
		"bytes_down", o.Down,
		"duration_ms", milliseconds(time.Since(x.begun)),
	)
	if o.Err != nil {
		attrs = append(attrs, "err", o.Err.Error())
	}
	x.engine.log.Info("request", attrs...)
	return keep
}

// Idle implements listen.Gateway.
func (x *exchange) Idle() { x.engine.slots.waits(x.h) }

// exchanges are those of the clients that are served.
type exchanges struct {
	mu  sync.Mutex
	all map[*exchange]bool
}

// enter adds x until leave is called.
func (all *exchanges) enter(x *exchange) (leave func()) {
	all.mu.Lock()
	if all.all == nil {
		all.all = map[*exchange]bool{}
	}
	all.all[x] = true
	all.mu.Unlock()
	all.drain() // what is on its way out may have passed x over
	return func() {
		all.mu.Lock()
		defer all.mu.Unlock()
		delete(all.all, x)
	}
}

// drain has clients leave whose listener is on its way out, once they have their answer.
func (all *exchanges) drain() {
	all.mu.Lock()
	defer all.mu.Unlock()
	for x := range all.all {
		if x.leaves() {
			x.server.Drain()
		}
	}
}

// unkeep ends the connections of an upstream that are kept for the next request, since a dial
// has to wait for a place.
func (all *exchanges) unkeep(of *gate) {
	all.mu.Lock()
	defer all.mu.Unlock()
	for x := range all.all {
		if x.at.Load() == of {
			x.server.Unkeep()
		}
	}
}

// leaves says whether the client's listener, or the daemon, is on its way out.
func (x *exchange) leaves() bool {
	return !x.engine.life.is().Takes() || !x.h.slots.life.is().Takes()
}
