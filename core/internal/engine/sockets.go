package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"syscall"

	"github.com/tunneld/tunneld/core/diag"
	"github.com/tunneld/tunneld/core/internal/config"
	"github.com/tunneld/tunneld/internal/unixsock"
)

// boundSocket is a socket that the daemon listens on: a listener's, or one of the
// metrics.
type boundSocket interface {
	claimed() *claim
	bound() place
	// inPlace says whether clients still come to it there.
	inPlace() bool
	// serve accepts on the socket. It is called with the generation in force that has
	// the socket, and again after a rebind.
	serve()
	// adapt gives a socket that serves what the configuration now says of it.
	adapt() error
	// close ends it; what it has accepted lives on.
	close() error
	// rebind binds a socket that was closed again, where it was.
	rebind(ctx context.Context) error
	// lose is told that it cannot be.
	lose()
	// tell logs that the socket begins to serve, or that it does not any more.
	tell(serves bool)
}

// claim is what a socket was bound for: one address of what a block's address comes
// to; of a name, for instance, that has several.
type claim struct {
	block   string // "listener.tcp.orders"; "metrics"
	written string // "localhost:5432"
	asked   place
	// inherited: the process was given the socket at its start, so that its address
	// stays taken when the daemon has closed it.
	inherited bool

	serving   bool
	displaced bool // closed, for another whose address overlaps
}

func (c *claim) claimed() *claim { return c }

// The blocks that sockets are bound for: that of the metrics, and the kind of a
// listener's.
const (
	metricsBlock   = "metrics"
	listenerBlocks = "listener"
)

func listenerBlock(id string) string { return listenerBlocks + "." + id }

// kind is what sort of socket a block has: one of another cannot take its place.
func kind(block string) string {
	name, _, _ := strings.Cut(block, ".")
	return name
}

// socketTable is the sockets that the daemon listens on, by their block. A reload
// takes from it what stays.
type socketTable map[string][]boundSocket

// of returns the sockets of one type that a block has.
func of[T boundSocket](t socketTable, block string) []T {
	var out []T
	for _, s := range t[block] {
		out = append(out, s.(T))
	}
	return out
}

// binding is how the sockets of one configuration become those of the next.
type binding struct {
	engine *Engine
	cfg    *config.Config
	like   *generation // see preparation
	old    socketTable // the engine's, which only commit and undo change
	next   socketTable
	claims map[boundSocket]claim // of those in next
	fresh  []boundSocket
	// leaving are the old ones that the next configuration does not use and that are
	// not closed.
	leaving map[boundSocket]bool
	// lost are those of the blocks that stay that could not be bound again.
	lost map[string][]*listening
	// permitted are the unix sockets that stay and whose permissions have changed, and
	// these as they were.
	permitted map[*listening]unixsock.Access
}

func (e *Engine) newBinding(cfg *config.Config, like *generation) *binding {
	return &binding{
		engine: e, cfg: cfg, like: like, old: e.sockets,
		next:      socketTable{},
		claims:    map[boundSocket]claim{},
		leaving:   map[boundSocket]bool{},
		lost:      map[string][]*listening{},
		permitted: map[*listening]unixsock.Access{},
	}
}

// wanted is what a block listens on.
type wanted struct {
	block     string
	addresses []string
	path      func(i int) string // where the block has one of them
	exposed   string             // what is wrong with it where it is reached from beyond this machine; empty: nothing
	list      string             // the attribute that says which addresses clients may have; empty: none does
	open      opener
	endpoints []*endpoint
}

// exposedAt says whether the block says too little of who may use it for a socket that is
// bound to an address.
func (w *wanted) exposedAt(p place) bool { return w.exposed != "" && p.beyond() }

// wants lists what the configuration listens on.
func (b *binding) wants() []*wanted {
	var all []*wanted
	for _, l := range b.cfg.Listeners {
		all = append(all, &wanted{
			block:     listenerBlock(l.ID()),
			addresses: l.Addresses,
			path:      l.AddressPath,
			exposed:   l.Exposed(),
			list:      listOf(l),
			open: func(ctx context.Context, at place, c claim) (boundSocket, error) {
				socket, err := b.engine.open(ctx, at, c, l)
				return &listening{claim: c, engine: b.engine, socket: socket}, err
			},
		})
	}
	return append(all, &wanted{
		block:     metricsBlock,
		addresses: b.cfg.Metrics.Addresses,
		path:      func(int) string { return "address" },
		open: func(ctx context.Context, at place, c claim) (boundSocket, error) {
			ln, err := listenTCP(ctx, at.addr)
			return &metricsSocket{claim: c, engine: b.engine, ln: ln}, err
		},
	})
}

// maxObstacles bounds how many addresses that cannot be bound are told of: where the
// descriptors are used up, it is all that are left.
const maxObstacles = 100

// bind finds or binds the sockets. A diagnostic names the block.
func (b *binding) bind(ctx context.Context) (diags diag.Diagnostics) {
	all := b.wants()
	all = slices.DeleteFunc(all, b.keep)
	// What is kept is known before anything has to make room.
	unused := map[string][]boundSocket{} // by kind
	for _, block := range slices.Sorted(maps.Keys(b.old)) {
		if b.next[block] == nil {
			unused[kind(block)] = append(unused[kind(block)], b.old[block]...)
		}
	}
	for _, w := range all {
		found, rest := b.plan(ctx, w, unused[kind(w.block)])
		diags, unused[kind(w.block)] = append(diags, found...), rest
	}
	for _, rest := range unused {
		for _, s := range rest {
			b.leaving[s] = true
		}
	}
	obstacles := 0
	for _, w := range all {
		for _, s := range w.endpoints {
			found := b.take(ctx, s, w.open)
			diags = append(diags, found...)
			if found.HasErrors() {
				obstacles++
			}
			if obstacles == maxObstacles || ctx.Err() != nil {
				return diags // it has failed, or is broken off
			}
			for i, socket := range s.sockets {
				if socket != nil {
					b.next[w.block] = append(b.next[w.block], socket)
					b.claims[socket] = s.claim(i)
				}
			}
		}
	}
	return diags
}

// keep keeps the sockets of a block whose address is not to be another, whatever it comes
// to now. Of others, and of those that now would be open to everybody, it says false, and does
// nothing.
func (b *binding) keep(w *wanted) bool {
	exposed := func(s boundSocket) bool { return s.claimed().inherited && w.exposedAt(s.bound()) }
	if b.like == nil || slices.ContainsFunc(b.old[w.block], exposed) {
		return false
	}
	if i := slices.IndexFunc(b.like.cfg.Listeners, func(l config.Listener) bool { return listenerBlock(l.ID()) == w.block }); i >= 0 {
		if !slices.Equal(b.like.cfg.Listeners[i].Addresses, w.addresses) {
			return false
		}
		for _, s := range b.like.served[i].sockets {
			if s.lost.Load() {
				b.lost[w.block] = append(b.lost[w.block], s)
			}
		}
	}
	if old := b.old[w.block]; old != nil {
		b.next[w.block] = old
	}
	for _, s := range b.old[w.block] {
		b.claims[s] = *s.claimed()
	}
	return true
}

// listening returns what a listener has, and what it has lost.
func (b *binding) listening(id string) []*listening {
	block := listenerBlock(id)
	return append(of[*listening](b.next, block), b.lost[block]...)
}

// plan resolves the addresses of a block, and finds which of the old sockets serve
// them; rest are the others.
func (b *binding) plan(ctx context.Context, w *wanted, old []boundSocket) (diags diag.Diagnostics, rest []boundSocket) {
	for i, address := range w.addresses {
		if name, ok := config.InheritedName(address); ok {
			s, problem := b.inherited(w, i, name)
			if problem != nil {
				diags = append(diags, *problem)
				continue
			}
			old = s.reuse(old)
			w.endpoints = append(w.endpoints, s)
			continue
		}
		s, err := resolve(ctx, b.engine.lookup, w.block, address)
		if known := asBound(old, w.block, address); err != nil && known != nil {
			b.engine.log.Warn("the name of an address cannot be resolved: its sockets stay", "block", w.block, "address", address, "err", err)
			s, err = known, nil
		}
		if err != nil {
			diags = append(diags, cannotBind(b.cfg, w.block, w.path(i), fmt.Errorf("listen on %s: %w", address, err), bindHint(err)))
			continue
		}
		s.path = w.path(i)
		old = s.reuse(old)
		w.endpoints = append(w.endpoints, s)
	}
	return append(diags, b.unlisted(w)...), old
}

// take binds what is left of an endpoint, and says what is in its way.
func (b *binding) take(ctx context.Context, s *endpoint, open opener) diag.Diagnostics {
	lacking, err := s.bind(ctx, b, open)
	if err != nil {
		return diag.Diagnostics{cannotBind(b.cfg, s.block, s.path, err, cmp.Or(b.inheritedHint(s, err), bindHint(err)))}
	}
	var diags diag.Diagnostics
	for _, ip := range lacking {
		diags = append(diags, isLacking(b.cfg, s, ip))
	}
	return diags
}

// displacing calls open, which binds a socket. Where an old socket that the next
// configuration does not use overlaps with it (127.0.0.1:P and 0.0.0.0:P), that one
// is closed first.
func (b *binding) displacing(at place, open func() error) error {
	err := open()
	for old := range b.leaving {
		if !errors.Is(err, syscall.EADDRINUSE) {
			break // what is left is not in the way
		}
		if old.claimed().inherited || !old.bound().overlaps(at) {
			continue
		}
		delete(b.leaving, old)
		old.claimed().displaced = true
		if closeErr := old.close(); closeErr != nil {
			return errors.Join(err, closeErr)
		}
		err = open()
	}
	return err
}

// undo closes the new sockets, and binds those again that were displaced.
func (b *binding) undo(ctx context.Context) error {
	var errs []error
	for _, s := range b.fresh {
		errs = append(errs, s.close())
	}
	kept := socketTable{}
	for block, sockets := range b.old {
		for _, s := range sockets {
			if c := s.claimed(); c.displaced {
				if err := s.rebind(ctx); err != nil {
					// The next reload is not to take a closed socket for one that serves.
					b.engine.log.Error("an address is lost: it cannot be bound again", "block", block, "address", s.bound().String(), "err", err)
					s.lose()
					continue
				}
				c.displaced = false
				s.serve()
			}
			kept[block] = append(kept[block], s)
		}
	}
	b.engine.replaceSockets(kept)
	return errors.Join(errs...)
}

// commit serves the new sockets and closes those that are gone.
func (b *binding) commit() {
	log := b.engine.log
	b.engine.replaceSockets(b.next)
	b.tellUnused()
	kept := map[boundSocket]bool{}
	for block, sockets := range b.next {
		for _, s := range sockets {
			c, now := s.claimed(), b.claims[s]
			kept[s] = true
			// It may have been another's, or written in another way.
			c.block, c.written, c.asked = now.block, now.written, now.asked
			if !c.serving {
				c.serving = true
				s.serve()
				s.tell(true)
			} else if err := s.adapt(); err != nil {
				log.Warn("socket options", "block", block, "err", err)
			}
		}
	}
	for block, sockets := range b.old {
		for _, s := range sockets {
			if kept[s] {
				continue
			}
			if !s.claimed().displaced {
				if err := s.close(); err != nil {
					log.Warn("close of a listening socket", "block", block, "err", err)
				}
			}
			s.tell(false)
		}
	}
}
