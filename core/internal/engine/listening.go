package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"

	"github.com/tunneld/tunneld/core/internal/config"
	"github.com/tunneld/tunneld/core/internal/listen"
	"github.com/tunneld/tunneld/internal/bare"
)

// listening is a bound socket. Which listener block it serves is the
// generation's to say, so that a reload changes both at once.
type listening struct {
	*spot
	socket  *listen.Socket
	serving bool
}

func (l *listening) bound() netip.AddrPort { return unmapped(l.socket.Addr()) }

func unmapped(addr *net.TCPAddr) netip.AddrPort {
	a := addr.AddrPort()
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

func (l *listening) vacate() error {
	l.closed = true
	return l.socket.Close()
}

func (l *listening) discard() error { return l.socket.Close() }

// binding is the sockets of the next generation while they are being bound. It
// can be undone until it is committed.
type binding struct {
	old   map[string][]*listening // by ID
	next  map[string][]*listening
	bound []tenant // new ones
	// leaving are the old ones that the next generation does not use and that are
	// not closed.
	leaving map[tenant]bool

	metrics                    []*metricsSocket // of the next generation
	commitControl, undoControl func()
}

// newBinding has nothing bound yet. It is committed or undone.
func (e *Engine) newBinding() *binding {
	return &binding{
		old:           e.listeners,
		next:          map[string][]*listening{},
		leaving:       map[tenant]bool{},
		commitControl: func() {},
		undoControl:   func() {},
	}
}

// bind finds or binds all that cfg listens on. On an error it has been undone.
func (e *Engine) bind(ctx context.Context, cfg *config.Config) (*binding, config.Diagnostics, error) {
	b := e.newBinding()
	diags := e.bindSockets(ctx, b, cfg)
	err := cmp.Or(verdict(diags), ctx.Err())
	if err == nil {
		diags = append(diags, e.bindControl(b, cfg)...)
		err = cmp.Or(verdict(diags), ctx.Err())
	}
	if err != nil {
		e.unbind(ctx, b)
		return nil, diags, err
	}
	return b, diags, nil
}

// maxObstacles bounds how many addresses that cannot be bound are told of: where the
// descriptors are used up, it is all that are left.
const maxObstacles = 100

// bindSockets finds or binds the sockets of the listeners and of the metrics. A
// diagnostic names the block.
func (e *Engine) bindSockets(ctx context.Context, b *binding, cfg *config.Config) config.Diagnostics {
	var diags config.Diagnostics
	obstacles := 0
	plan := func(block string, written []string, old []tenant) (sites []*site, rest []tenant) {
		for _, address := range written {
			s, err := survey(ctx, e.lookup, block, address)
			if known := asBound(old, block, address); err != nil && known != nil {
				e.log.Warn("the name of an address cannot be resolved: its sockets stay", "block", block, "address", address, "err", err)
				s, err = known, nil
			}
			if err != nil {
				diags = append(diags, cannotBind(cfg, block, fmt.Errorf("listen on %s: %w", address, err)))
				continue
			}
			old = s.reuse(old)
			sites = append(sites, s)
		}
		return sites, old
	}
	// What is kept is known before anything has to make room.
	var old []tenant
	for _, id := range slices.Sorted(maps.Keys(e.listeners)) {
		old = append(old, tenants(e.listeners[id])...)
	}
	sites := make([][]*site, len(cfg.Listeners))
	for i, l := range cfg.Listeners {
		sites[i], old = plan("listener."+l.ID(), l.Addresses, old)
	}
	metricsSites, oldMetrics := plan("metrics", cfg.Metrics.Addresses, tenants(e.metricsServer.all()))
	for _, t := range slices.Concat(old, oldMetrics) {
		b.leaving[t] = true
	}
	for i, l := range cfg.Listeners {
		for _, s := range sites[i] {
			told := b.take(cfg, s, func(at netip.AddrPort, on *spot) (tenant, error) {
				socket, err := bind(ctx, at, l)
				return &listening{spot: on, socket: socket}, err
			})
			diags = append(diags, told...)
			if told.HasErrors() {
				obstacles++
			}
			if obstacles == maxObstacles || ctx.Err() != nil {
				return diags // it has failed, or is broken off
			}
			b.next[l.ID()] = append(b.next[l.ID()], serving[*listening](s)...)
		}
	}
	for _, s := range metricsSites {
		diags = append(diags, b.take(cfg, s, func(at netip.AddrPort, on *spot) (tenant, error) {
			ln, err := listenTCP(ctx, at)
			return &metricsSocket{spot: on, ln: ln}, err
		})...)
		b.metrics = append(b.metrics, serving[*metricsSocket](s)...)
	}
	return diags
}

// take binds what is left of a site, and says what is in its way.
func (b *binding) take(cfg *config.Config, s *site, open func(netip.AddrPort, *spot) (tenant, error)) config.Diagnostics {
	lacking, err := s.occupy(b, open)
	if err != nil {
		return config.Diagnostics{cannotBind(cfg, s.block, err)}
	}
	var diags config.Diagnostics
	for _, ip := range lacking {
		diags = append(diags, isLacking(cfg, s, ip))
	}
	return diags
}

func tenants[T tenant](list []T) []tenant {
	var out []tenant
	for _, t := range list {
		out = append(out, t)
	}
	return out
}

// serving returns the sockets of a site.
func serving[T tenant](s *site) []T {
	var out []T
	for _, t := range s.tenants {
		if t != nil {
			out = append(out, t.(T))
		}
	}
	return out
}

// bind binds address with l's options.
func bind(ctx context.Context, address netip.AddrPort, l config.Listener) (*listen.Socket, error) {
	return listen.Bind(ctx, address.String(), listen.Options{Backlog: l.Backlog, Socket: l.Socket})
}

// unbind undoes b: new sockets are closed, and then those that made room are bound
// again.
func (e *Engine) unbind(ctx context.Context, b *binding) {
	b.undoControl()
	for _, t := range b.bound {
		if err := t.discard(); err != nil {
			e.log.Warn("undo of a reload", "err", err)
		}
	}
	// Also where the reload is to be broken off.
	ctx = context.WithoutCancel(ctx)
	for id, old := range b.old {
		// The next reload is not to take a closed socket for one that serves.
		if kept := slices.DeleteFunc(old, func(l *listening) bool { return l.closed && !e.rebind(ctx, id, l) }); len(kept) > 0 {
			e.listeners[id] = kept
		} else {
			delete(e.listeners, id)
		}
	}
	e.restoreMetrics(ctx)
}

// rebind serves a listening again that made room, or says that it cannot.
func (e *Engine) rebind(ctx context.Context, id string, old *listening) bool {
	socket, err := bind(ctx, old.bound(), e.current.Load().listeners[old].Listener)
	if err != nil {
		e.log.Error("a listener is lost: its address cannot be bound again", "listener", id, "err", err)
		return false
	}
	// The generation in force knows it by its listening.
	old.socket, old.closed = socket, false
	e.serve(old)
	return true
}

// commit serves the new sockets and closes those that are gone. It is called
// after the swap of the generation.
func (e *Engine) commit(b *binding, cfg *config.Config) {
	kept := map[*listening]bool{}
	for _, l := range cfg.Listeners {
		for _, on := range b.next[l.ID()] {
			kept[on] = true
			on.block = "listener." + l.ID() // it may have been another's
			if !on.serving {
				e.serve(on)
				e.log.Info("listening", "listener", l.ID(), "address", on.bound().String())
				continue
			}
			if err := errors.Join(on.socket.SetBacklog(l.Backlog), on.socket.SetOptions(l.Socket)); err != nil {
				e.log.Warn("socket options", "listener", l.ID(), "err", err)
			}
		}
	}
	for id, sockets := range b.old {
		for _, old := range sockets {
			if kept[old] {
				continue
			}
			if !old.closed {
				if err := old.socket.Close(); err != nil {
					e.log.Warn("close of a listener", "listener", id, "err", err)
				}
			}
			e.log.Info("no longer listening", "listener", id, "address", old.bound().String())
		}
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
