package engine

import (
	"context"

	"github.com/tunneld/tunneld/core/diag"
	"github.com/tunneld/tunneld/core/internal/control"
)

// transition is a configuration on its way to being in force: what its steps know of
// each other.
type transition struct {
	engine    *Engine
	plugins   *preparation
	sockets   *binding
	old, next *generation // old is nil at the start; next is made last
	like      *generation // old, with renewal.only; else nil

	commitControl, undoControl func()
}

// replace puts a configuration in force, or changes nothing. With errors among the
// parser's diagnostics it is only checked further, so that the user is told of all
// problems at once. It returns what has changed. It is called with turn held.
func (e *Engine) replace(ctx context.Context, n renewal) (diag.Diagnostics, []string, error) {
	t := e.newTransition(n)
	if err := transact(ctx, t.steps()); err != nil {
		return t.plugins.diags, nil, err
	}
	if t.old == nil {
		return t.plugins.diags, nil, nil
	}
	return t.plugins.diags, changes(t.old, t.next), nil
}

func (e *Engine) newTransition(n renewal) *transition {
	e.number++
	var like *generation
	if n.only != nil {
		like = e.current.Load()
	}
	return &transition{
		engine:  e,
		like:    like,
		plugins: &preparation{host: e.host, opts: e.opts, cfg: n.cfg, diags: n.diags, running: e.running, fresh: n.fresh, number: e.number, like: like, only: n.only},
		sockets: e.newBinding(n.cfg, like),
		old:     e.current.Load(),
	}
}

// steps are what puts a configuration in force, in this order. The check comes first:
// no other step has to do with a configuration that has errors. From the commit of the
// generation on, connections go by the new one; so it comes before that of the
// sockets, which accept them. What the old generation alone needed is retired last.
func (t *transition) steps() []step {
	return []step{
		{name: "plugins", prepare: t.plugins.check, undo: t.plugins.stop},
		{name: "upstreams", prepare: t.plugins.configure, undo: t.plugins.release},
		{name: "TLS files", prepare: t.readTLS, undo: t.forgetTLS},
		{name: "generation", commit: t.swap},
		{name: "sockets", prepare: t.bind, undo: t.sockets.undo, commit: t.sockets.commit},
		{name: "control socket", prepare: t.bindControl, undo: t.unbindControl, commit: func() { t.commitControl() }},
		{name: "followed files", commit: func() { t.engine.followed.follow(t.plugins.cfg) }},
		{name: "retirement", commit: t.retire},
	}
}

func (t *transition) readTLS(ctx context.Context) error {
	return t.engine.tls.prepare(ctx, t.plugins.cfg)
}

func (t *transition) forgetTLS(context.Context) error {
	t.engine.tls.forget()
	return nil
}

func (t *transition) bind(ctx context.Context) error {
	found := t.sockets.bind(ctx)
	t.plugins.diags = append(t.plugins.diags, found...)
	return verdict(found)
}

// bindControl binds the control socket.
func (t *transition) bindControl(context.Context) error {
	cfg := t.plugins.cfg
	t.commitControl = func() {}
	if t.like != nil {
		return nil // it stays, whatever has become of its place
	}
	address := control.Address(cfg.Control.Address, cfg.Daemon.RunDir)
	commit, undo, err := t.engine.control.Prepare(address)
	switch {
	case err == nil:
		t.commitControl, t.undoControl = commit, undo
	case cfg.Control.Address != "":
		found := diag.Diagnostics{obstacle(cfg, "control", "address", "the control socket cannot be bound", err.Error())}
		t.plugins.diags = append(t.plugins.diags, found...)
		return verdict(found)
	default:
		// Nobody asked for it.
		t.engine.log.Warn("no control socket: tunneld reload and tunneld status will not find this daemon", "address", address, "err", err)
	}
	return nil
}

func (t *transition) unbindControl(context.Context) error {
	if t.undoControl != nil {
		t.undoControl()
	}
	return nil
}

// swap makes the new generation the one in force.
func (t *transition) swap() {
	e, cfg := t.engine, t.plugins.cfg
	e.opts.SetLog(cfg.Log)
	t.next = newGeneration(t.plugins.number, cfg, t.plugins.plugins, t.sockets, upstreamRecords{e.gates, e.availabilities, e.tls, e.own, e.opts.resolver}, e.logins)
	e.tls.forget()
	t.next.limit.warn(e.log)
	t.next.place(e.slots)
	e.current.Store(t.next)
	for _, p := range t.plugins.plugins {
		e.availabilities.catchUp(p)
	}
}

// retire lets go of what only the old generation has.
func (t *transition) retire() {
	e := t.engine
	listeners, routes, upstreams := t.next.names()
	e.metrics.Retain(listeners, routes, upstreams)
	e.gates.retain(upstreams)
	e.availabilities.retain(t.next.upstreams)
	e.tls.retain(t.next.secured)
	e.logins.retain(t.next.asking)
	e.running = append(e.running, t.plugins.started...)
	e.expiry.begin(t.like == nil)
	if t.old == nil {
		return
	}
	e.retire(t.old)
	e.retirePlugins(t.next.plugins, t.next.cfg.Daemon.DrainTimeout)
}
