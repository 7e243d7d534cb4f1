package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/tunneld/tunneld/core/internal/config"
	"github.com/tunneld/tunneld/core/internal/listen"
	"github.com/tunneld/tunneld/core/internal/splice"
	"github.com/tunneld/tunneld/core/internal/tunnel"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// connection is one client from accept to its access-log line.
type connection struct {
	engine   *Engine
	id       string
	start    time.Time
	dialing  time.Time
	listener config.Listener
	access   bool
	source   string
	target   tunnel.Target
	route    string
	upstream string
	tunnel   *tunnel.Conn
}

// handle takes a connection that was just accepted. It does not block.
func (e *Engine) handle(on *listening, c *net.TCPConn) {
	g := e.hold()
	if g == nil {
		listen.Reset(c)
		return
	}
	l, ok := g.listeners[on]
	if !ok {
		// Accepted while a reload took the listener away.
		g.release()
		listen.Reset(c)
		return
	}
	remote := c.RemoteAddr().(*net.TCPAddr).AddrPort()
	conn := &connection{
		engine:   e,
		id:       e.nextID(),
		start:    time.Now(),
		listener: l,
		access:   g.cfg.Log.Access,
		source:   remote.String(),
		target:   l.Target,
	}
	source := remote.Addr().Unmap()
	if err := e.slots.take(g.limit, l, source); err != nil {
		g.release()
		e.refuse(l.Kind, c, conn.refused(err))
		return
	}
	e.connections.Go(func() { conn.run(g, c, func() { e.slots.give(l.ID(), source) }) })
}

// maxRefusals bounds the clients beyond a limit that are told so at one time; the
// others are reset. They hold no slot, and a word to them takes a while.
const maxRefusals = 64

func (e *Engine) refuse(kind string, c *net.TCPConn, err *tunnel.DialError) {
	if e.refusals.Add(1) > maxRefusals {
		e.refusals.Add(-1)
		listen.Reset(c)
		return
	}
	e.connections.Go(func() {
		defer e.refusals.Add(-1)
		defer context.AfterFunc(e.dialing, func() { listen.Reset(c) })()
		listen.Refuse(kind, c, err)
	})
}

// run takes the connection to its tunnel, or to its refusal. done gives its slot
// back, which comes before the line of the log: who reads that may count on it.
func (c *connection) run(g *generation, raw *net.TCPConn, done func()) {
	ctx, cancel := context.WithCancelCause(c.engine.dialing)
	defer cancel(nil)
	// A stop does not wait for what a client has to say or to read.
	mine := context.AfterFunc(ctx, func() { listen.Reset(raw) })
	defer mine()
	if err := c.listener.Socket.Apply(raw); err != nil {
		c.engine.log.Debug("socket options", "conn", c.id, "listener", c.listener.ID(), "err", err)
	}
	client, handshakeErr := listen.Handshake(c.listener.Kind, raw, c.listener.Target, c.listener.Timeout.Handshake)
	if handshakeErr != nil {
		g.release()
		done()
		level := slog.LevelWarn
		if errors.Is(handshakeErr, listen.ErrNothing) {
			level = slog.LevelDebug // a probe of the port
		}
		c.engine.log.Log(ctx, level, "client handshake failed", "conn", c.id, "listener", c.listener.ID(), "client", c.source, "err", handshakeErr)
		return
	}
	c.target = client.Target()
	c.dialing = time.Now()
	up, err := c.dial(ctx, g)
	g.release()
	if err != nil {
		client.Refuse(err)
		done()
		c.logFailure(err)
		return
	}
	stream, ahead, acceptErr := client.Accept()
	gone := tunnel.CloseClientReset
	if !mine() {
		gone, acceptErr = tunnel.CloseKilled, errStopping
	}
	if acceptErr != nil {
		abandon(up, acceptErr.Error())
		done()
		c.log(splice.Result{Reason: gone, Err: acceptErr})
		return
	}
	c.tunnel = up
	c.engine.pump.Start(splice.Tunnel{
		Client:      stream,
		ClientAhead: ahead,
		Upstream:    up,
		Timeouts: splice.Timeouts{
			Idle:      c.listener.Timeout.Idle,
			HalfClose: c.listener.Timeout.HalfClose,
			Lifetime:  c.listener.Timeout.Lifetime,
		},
		Done: func(r splice.Result) {
			done()
			c.log(r)
		},
	})
}

// abandon closes an upstream that no client wants any more.
func abandon(up *tunnel.Conn, reason string) {
	if up.Relay != nil {
		up.Relay.Abort(reason)
		defer up.Relay.Ended()
	}
	// Nothing was sent on it: closing it tells the far end all there is.
	_ = up.Stream.Close()
}

// dial finds the route and tries its upstreams in order, as long as each error
// is retryable and the listener's time for dialing is not over.
func (c *connection) dial(ctx context.Context, g *generation) (*tunnel.Conn, *tunnel.DialError) {
	n, ok := g.table.Find(c.listener.ID(), c.target)
	if !ok {
		return nil, &tunnel.DialError{
			Stage:   pluginv1.Stage_STAGE_REQUEST,
			Reason:  pluginv1.Reason_REASON_DENIED,
			Message: fmt.Sprintf("no route matches %s on listener %s", c.target, c.listener.ID()),
			Hint:    "add a route whose match block takes this listener, host and port, or one without a match block at the end",
		}
	}
	to := g.routes[n]
	c.route = to.name
	var deadline time.Time
	if d := c.listener.Timeout.Dial; d > 0 {
		deadline = c.dialing.Add(d)
	}
	var last *tunnel.DialError
	for i, u := range to.upstreams {
		if last != nil {
			c.engine.log.Info("upstream failed, the next is tried", append(c.attrs(), failureAttrs(last)...)...)
		}
		c.upstream = u.id
		until := share(deadline, len(to.upstreams)-i)
		conn, err := c.attempt(ctx, u, until)
		if err != nil && errors.Is(err, tunnel.ErrPluginDied) && !overdue(until) {
			// It was not the far end's fault, and the plugin is being started
			// again: once more, so that its death costs no new connection.
			conn, err = c.attempt(ctx, u, until)
		}
		if err == nil {
			return conn, nil
		}
		last = err
		if !err.Retryable || ctx.Err() != nil || overdue(deadline) {
			break
		}
	}
	return nil, last
}

// leastShare is the least time that an upstream gets before the next is tried,
// as long as there is that much.
const leastShare = 2 * time.Second

// share divides what is left of the time evenly among the upstreams that are
// left, so that one that hangs leaves the next a chance. Zero: no limit.
func share(deadline time.Time, left int) time.Time {
	if deadline.IsZero() || left <= 1 {
		return deadline
	}
	rest := time.Until(deadline)
	return time.Now().Add(min(rest, max(rest/time.Duration(left), leastShare)))
}

func overdue(deadline time.Time) bool { return !deadline.IsZero() && time.Until(deadline) <= 0 }

func (c *connection) attempt(ctx context.Context, u upstream, deadline time.Time) (*tunnel.Conn, *tunnel.DialError) {
	if !deadline.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadlineCause(ctx, deadline, fmt.Errorf("listener %s allows %s for dialing: %w", c.listener.ID(), c.listener.Timeout.Dial, context.DeadlineExceeded))
		defer cancel()
	}
	conn, err := u.dialer.Dial(ctx, tunnel.Dial{
		Target:     c.target,
		Source:     c.source,
		Listener:   c.listener.ID(),
		Route:      c.route,
		Connection: c.id,
		Socket:     c.listener.Socket,
	})
	if err == nil {
		return conn, nil
	}
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
		typed.Upstream = u.id
	}
	if errors.Is(context.Cause(ctx), errStopping) {
		typed.Message = errStopping.Error()
		typed.Hint = "try again once it has been started anew"
	}
	return nil, typed
}

// refused is what a client beyond a limit is told; it also logs it.
func (c *connection) refused(cause error) *tunnel.DialError {
	err := &tunnel.DialError{
		Stage:   pluginv1.Stage_STAGE_CONNECT,
		Reason:  pluginv1.Reason_REASON_UNAVAILABLE,
		Message: cause.Error(),
		Hint:    "raise the limit, or find out who holds the connections",
	}
	c.logFailure(err)
	return err
}

func (c *connection) attrs() []any {
	return []any{
		"conn", c.id,
		"listener", c.listener.ID(),
		"route", c.route,
		"upstream", c.upstream,
		"client", c.source,
		"target", c.target.String(),
	}
}

func failureAttrs(err *tunnel.DialError) []any {
	attrs := []any{
		"stage", err.Stage.Text(),
		"reason", err.Reason.Text(),
		"err", err.Message,
	}
	if err.Hint != "" {
		attrs = append(attrs, "hint", err.Hint)
	}
	return append(attrs, stageAttrs(err.Stages)...)
}

func stageAttrs(stages []tunnel.StageTime) []any {
	if len(stages) == 0 {
		return nil
	}
	var times []any
	for _, s := range stages {
		times = append(times, slog.Float64(s.Stage.Text(), milliseconds(s.Duration)))
	}
	return []any{slog.Group("dial_ms", times...)}
}

func milliseconds(d time.Duration) float64 {
	return float64(d.Round(time.Microsecond)) / float64(time.Millisecond)
}

// logFailure writes the one line of a connection that never became a tunnel.
func (c *connection) logFailure(err *tunnel.DialError) {
	c.engine.log.Warn("connection failed", append(c.attrs(), failureAttrs(err)...)...)
}

// log writes the one line of a tunnel that has ended.
func (c *connection) log(r splice.Result) {
	if !c.access {
		return
	}
	attrs := c.attrs()
	if c.tunnel != nil {
		attrs = append(attrs, "path", c.tunnel.Path.Text())
		attrs = append(attrs, stageAttrs(c.tunnel.Stages)...)
	}
	attrs = append(attrs,
		"bytes_up", r.Up,
		"bytes_down", r.Down,
		"duration_ms", milliseconds(time.Since(c.start)),
		"reason", string(r.Reason),
	)
	if r.Err != nil {
		attrs = append(attrs, "err", r.Err.Error())
	}
	c.engine.log.Info("connection", attrs...)
}
