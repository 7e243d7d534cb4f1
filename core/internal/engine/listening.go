package engine

import (
	"cmp"
	"context"
	"errors"
	"net"
	"net/netip"

	"github.com/tunneld/tunneld/core/internal/config"
	"github.com/tunneld/tunneld/core/internal/listen"
	"github.com/tunneld/tunneld/internal/bare"
)

// listening is a bound socket. Which listener block it serves is the
// generation's to say, so that a reload changes both at once.
type listening struct {
	socket  *listen.Socket
	serving bool
	closed  bool // by vacate
}

func (l *listening) bound() netip.AddrPort { return l.socket.Addr().AddrPort() }

func (l *listening) vacate() error {
	l.closed = true
	return l.socket.Close()
}

// binding is the sockets of the next generation while they are being bound. It
// can be undone until it is committed.
type binding struct {
	old   map[string]*listening // by ID
	next  map[string]*listening
	bound []*listening // new ones
	// leaving are the old ones, and the old one of the metrics, that the next
	// generation does not use and that are not closed.
	leaving map[tenant]bool

	metrics                    *metricsServer // of the next generation; nil: none
	commitControl, undoControl func()
}

// newBinding has nothing bound yet. It is committed or undone.
func (e *Engine) newBinding() *binding {
	return &binding{
		old:           e.listeners,
		next:          map[string]*listening{},
		leaving:       map[tenant]bool{},
		metrics:       e.metricsServer,
		commitControl: func() {},
		undoControl:   func() {},
	}
}

// bind finds or binds all that cfg listens on. On an error it has been undone.
func (e *Engine) bind(ctx context.Context, cfg *config.Config) (*binding, config.Diagnostics, error) {
	b := e.newBinding()
	var diags config.Diagnostics
	for _, step := range []func(context.Context, *binding, *config.Config) config.Diagnostics{e.bindListeners, e.bindServers} {
		diags = append(diags, step(ctx, b, cfg)...)
		if err := cmp.Or(verdict(diags), ctx.Err()); err != nil {
			e.unbind(ctx, b)
			return nil, diags, err
		}
	}
	return b, diags, nil
}

// bindListeners finds or binds a socket for each listener. A diagnostic names the
// listener.
func (e *Engine) bindListeners(ctx context.Context, b *binding, cfg *config.Config) config.Diagnostics {
	free := map[string]*listening{}
	for id, l := range e.listeners {
		free[socketKey(id, l.socket.Address())] = l
	}
	var open []config.Listener
	for _, l := range cfg.Listeners {
		if key, on := reusable(free, l); on != nil {
			b.next[l.ID()] = on
			delete(free, key)
			continue
		}
		open = append(open, l)
	}
	for _, l := range free {
		b.leaving[l] = true
	}
	if m := e.metricsServer; m != nil && m.address != cfg.Metrics.Address {
		b.leaving[m] = true
	}
	var diags config.Diagnostics
	for _, l := range open {
		on := &listening{}
		err := b.inRoom(l.Address, func() (err error) {
			on.socket, err = bind(ctx, l.Address, l)
			return err
		})
		if err != nil {
			diags = append(diags, cannotBind(cfg, "listener."+l.ID(), err))
			continue
		}
		b.next[l.ID()] = on
		b.bound = append(b.bound, on)
	}
	return diags
}

// reusable returns the old socket that serves l as well: one for the same
// address as written, or one whose port the system picked and l now names.
func reusable(free map[string]*listening, l config.Listener) (string, *listening) {
	key := socketKey(l.ID(), l.Address)
	if on := free[key]; on != nil {
		return key, on
	}
	for key, on := range free {
		if on.socket.Addr().String() == l.Address {
			return key, on
		}
	}
	return "", nil
}

// socketKey is what makes two listeners share a socket over a reload: the
// address, and for a port that the system picks the listener as well.
func socketKey(id, address string) string {
	if _, port, err := net.SplitHostPort(address); err == nil && port == "0" {
		return address + " " + id
	}
	return address
}

// bind binds address with l's options.
func bind(ctx context.Context, address string, l config.Listener) (*listen.Socket, error) {
	return listen.Bind(ctx, address, listen.Options{Backlog: l.Backlog, Socket: l.Socket})
}

// unbind undoes b: new sockets are closed, and then those that made room are bound
// again.
func (e *Engine) unbind(ctx context.Context, b *binding) {
	b.undoControl()
	if m := b.metrics; m != nil && m != e.metricsServer {
		if err := m.ln.Close(); err != nil {
			e.log.Warn("undo of a reload", "err", err)
		}
	}
	for _, l := range b.bound {
		if err := l.socket.Close(); err != nil {
			e.log.Warn("undo of a reload", "err", err)
		}
	}
	for id, old := range b.old {
		if !old.closed {
			continue
		}
		// Also where the reload is to be broken off.
		socket, err := bind(context.WithoutCancel(ctx), old.socket.Again(), e.current.Load().listeners[old].Listener)
		if err != nil {
			e.log.Error("a listener is lost: its address cannot be bound again", "listener", id, "err", err)
			// The next reload is not to take the closed socket for one that serves.
			delete(e.listeners, id)
			continue
		}
		// The generation in force knows it by its listening.
		old.socket, old.closed = socket, false
		e.serve(old)
	}
	if m := e.metricsServer; m != nil && m.closed {
		e.restoreMetrics()
	}
}

// commit serves the new sockets and closes those that are gone. It is called
// after the swap of the generation.
func (e *Engine) commit(b *binding, cfg *config.Config) {
	kept := map[*listening]bool{}
	for _, l := range cfg.Listeners {
		on := b.next[l.ID()]
		kept[on] = true
		if !on.serving {
			e.serve(on)
			e.log.Info("listening", "listener", l.ID(), "address", on.socket.Addr().String())
			continue
		}
		if err := errors.Join(on.socket.SetBacklog(l.Backlog), on.socket.SetOptions(l.Socket)); err != nil {
			e.log.Warn("socket options", "listener", l.ID(), "err", err)
		}
	}
	for id, old := range b.old {
		if kept[old] {
			continue
		}
		if !old.closed {
			if err := old.socket.Close(); err != nil {
				e.log.Warn("close of a listener", "listener", id, "err", err)
			}
		}
		e.log.Info("no longer listening", "listener", id, "address", old.socket.Addr().String())
	}
	e.listeners = b.next
}

// paused counts a pause of accepting for the listener that l serves.
func (e *Engine) paused(l *listening) {
	g := e.hold()
	if g == nil {
		return
	}
	defer g.release()
	if on := g.listeners[l]; on != nil {
		e.metrics.AcceptPaused(on.id)
	}
}

func (e *Engine) serve(l *listening) {
	l.serving = true
	l.socket.Serve(e.log, func(c *bare.Socket, peer netip.AddrPort) { e.handle(l, c, peer) }, func() { e.paused(l) })
}
