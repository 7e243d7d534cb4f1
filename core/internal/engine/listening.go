package engine

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strconv"
	"syscall"

	"github.com/tunneld/tunneld/core/internal/config"
	"github.com/tunneld/tunneld/core/internal/listen"
	"github.com/tunneld/tunneld/internal/bare"
)

// listening is a bound socket. Which listener block it serves is the
// generation's to say, so that a reload changes both at once.
type listening struct {
	socket  *listen.Socket
	serving bool
	closed  bool // to make room for another address; see binding.open
}

// binding is the sockets of the next generation while they are being bound. It
// can be undone until it is committed.
type binding struct {
	old   map[string]*listening // by ID
	next  map[string]*listening
	bound []*listening // new ones

	servers *nextServers
}

// bind finds or binds a socket for each listener. On an error it has been
// undone, and the diagnostic names the listener.
func (e *Engine) bind(ctx context.Context, cfg *config.Config) (*binding, config.Diagnostics) {
	b := &binding{old: e.listeners, next: map[string]*listening{}}
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
	var diags config.Diagnostics
	for _, l := range open {
		on, err := b.open(ctx, l, free)
		if err != nil {
			diags = append(diags, cannotBind(cfg, "listener."+l.ID(), err))
			continue
		}
		b.next[l.ID()] = on
		b.bound = append(b.bound, on)
	}
	if diags.HasErrors() {
		e.unbind(ctx, b)
		return nil, diags
	}
	return b, nil
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

// open binds a new socket. Where an old one that nobody needs any more overlaps
// with it (127.0.0.1:P and 0.0.0.0:P), that one is closed first.
func (b *binding) open(ctx context.Context, l config.Listener, free map[string]*listening) (*listening, error) {
	socket, err := bind(ctx, l.Address, l)
	if errors.Is(err, syscall.EADDRINUSE) {
		for _, old := range free {
			if !errors.Is(err, syscall.EADDRINUSE) {
				break // what is left is not in the way
			}
			if old.closed || !overlap(old.socket.Addr().AddrPort(), l.Address) {
				continue
			}
			old.closed = true
			if closeErr := old.socket.Close(); closeErr != nil {
				return nil, errors.Join(err, closeErr)
			}
			socket, err = bind(ctx, l.Address, l)
		}
	}
	if err != nil {
		return nil, err
	}
	return &listening{socket: socket}, nil
}

// bind binds address with l's options.
func bind(ctx context.Context, address string, l config.Listener) (*listen.Socket, error) {
	return listen.Bind(ctx, address, listen.Options{Backlog: l.Backlog, Socket: l.Socket})
}

// overlap says whether address may be in the way of bound. A name is, with the
// same port: which address it is bound to is not known before.
func overlap(bound netip.AddrPort, address string) bool {
	host, port, err := net.SplitHostPort(address)
	if err != nil || port != strconv.Itoa(int(bound.Port())) {
		return false
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return true
	}
	// The unspecified address takes both families: that is how Go listens on it.
	return ip.IsUnspecified() || bound.Addr().IsUnspecified() || ip.Unmap() == bound.Addr().Unmap()
}

// cannotBind is told of a block whose address cannot be bound.
func cannotBind(cfg *config.Config, blockID string, err error) config.Diagnostic {
	return obstacle(cfg, blockID, "address", "the address cannot be bound", err.Error()+": "+bindHint(err))
}

func bindHint(err error) string {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return "another program holds it; find it with ss -ltnp, or choose another port"
	case errors.Is(err, syscall.EACCES):
		return "ports below 1024 need CAP_NET_BIND_SERVICE"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return "this machine does not have that address"
	default:
		return "check the address"
	}
}

// unbind undoes b: new sockets are closed and those that made room are bound
// again.
func (e *Engine) unbind(ctx context.Context, b *binding) {
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
