package engine

import (
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/tunneld/tunneld/core/internal/auth"
	"github.com/tunneld/tunneld/core/internal/config"
	"github.com/tunneld/tunneld/core/internal/pluginhost"
	"github.com/tunneld/tunneld/core/internal/route"
	"github.com/tunneld/tunneld/core/internal/targets"
	"github.com/tunneld/tunneld/core/internal/tunnel"
	"github.com/tunneld/tunneld/internal/outbound"
	"github.com/tunneld/tunneld/internal/tlsconf"
)

// generation is one configuration in force. It never changes; a reload makes
// the next one and swaps a pointer. Connections that are being dialed hold it.
type generation struct {
	number    uint64
	cfg       *config.Config
	limit     ceiling
	listeners map[*listening]*listener
	table     *route.Table
	routes    []routing
	plugins   map[string]*pluginhost.Plugin // by type
	hashes    map[string]string             // of the upstreams' values, by ID
	upstreams map[string]upstream           // by ID
	served    []served                      // in the configuration's order
	secured   map[tlsKey]bool               // the tls blocks of its direct upstreams and listeners
	asking    map[loginKey]bool             // the realms of its listeners

	holders atomic.Int64
	unheld  chan struct{} // closed once it was retired and nobody holds it
}

// served is a listener as its status has it.
type served struct {
	id        string
	addresses []string // as bound, at least one
	sockets   []*listening
	target    string
}

// bound returns the addresses that it still listens on, and those that were lost.
func (s served) bound() (now, lost []string) {
	now = []string{} // also as JSON
	for i, address := range s.addresses {
		if s.sockets[i].lost.Load() {
			lost = append(lost, address)
		} else {
			now = append(now, address)
		}
	}
	return now, lost
}

// listener is a listener block as its connections need it. They hold on to it,
// not to the whole configuration.
type listener struct {
	config.Listener
	id     string
	access bool // one line in the log for each connection
	// allow is tunnel.Dial's.
	allow func(netip.Addr) error
	tls   *tlsconf.Server // spoken with clients; nil: none is
	realm *auth.Realm     // who may log in; nil: nobody is asked
	slots *listenerSlots  // set by place
}

// routing is a route with its upstreams, in order.
type routing struct {
	name      string
	upstreams []upstream
}

type upstream struct {
	id     string
	dialer tunnel.Dialer
	gate   *gate
	// availability decides the order in which a route's upstreams are tried.
	availability *availability
	// halfClose stands for the listener's; nil: unset.
	halfClose *time.Duration
	// answer is the longest that a dial waits for what the far end says; 0: not known.
	answer time.Duration
	// ownClock: the plugin ends a tunnel whose client has ended its direction.
	ownClock bool
}

// patience is half_close of a tunnel through the upstream: what a plugin that
// keeps it is told, and what is left to the pump.
func (u upstream) patience(listeners time.Duration) (plugin, pump time.Duration) {
	d := listeners
	if u.halfClose != nil {
		d = *u.halfClose
	}
	if u.ownClock {
		return d, 0
	}
	return 0, d
}

// upstreamRecords is what outlives generations and is known of their upstreams, and of the
// machine that they dial from.
type upstreamRecords struct {
	gates          *gates
	availabilities *availabilities
	tls            *tlsFiles
	own            *targets.Own
	resolver       outbound.Resolver // nil: the system's
}

// upstream is that of a plugin; nil: a built-in one.
func (k upstreamRecords) upstream(u config.Upstream, p *pluginhost.Plugin, dialer tunnel.Dialer) upstream {
	g := k.gates.of(u.ID())
	limit := 0
	if u.Common.MaxConnections != nil {
		limit = *u.Common.MaxConnections
	}
	g.setLimit(limit)
	return upstream{id: u.ID(), dialer: dialer, gate: g, availability: k.availabilities.of(u, p, &g.life), halfClose: u.Common.HalfClose, answer: u.Answer}
}

// newGeneration puts the limits of the upstreams in force: it is the one that
// is swapped in.
func newGeneration(number uint64, cfg *config.Config, plugins map[string]*pluginhost.Plugin, sockets *binding, known upstreamRecords, logins *logins) *generation {
	g := &generation{
		number:    number,
		cfg:       cfg,
		limit:     newCeiling(cfg),
		listeners: map[*listening]*listener{},
		plugins:   plugins,
		hashes:    map[string]string{},
		upstreams: map[string]upstream{},
		secured:   map[tlsKey]bool{},
		asking:    map[loginKey]bool{},
		unheld:    make(chan struct{}),
	}
	g.holders.Store(1) // the engine, until it retires the generation
	for _, l := range cfg.Listeners {
		realm, key := logins.of(l.ID(), l.Auth)
		g.asking[key] = true
		on := &listener{Listener: l, id: l.ID(), access: cfg.Log.Access, realm: realm}
		if l.NamesTarget() {
			on.allow = targets.New(targets.Options{Listener: "listener." + l.ID(), Deny: l.DenyTargets, Allow: l.AllowTargets, Own: known.own}).Check
		}
		if l.TLS != nil {
			g.secured[serverKey(l.ID(), l.TLS.Server)] = true
			on.tls = known.tls.server(l.ID(), l.TLS.Server)
		}
		serves := served{id: l.ID(), sockets: sockets.listening(l.ID()), target: l.Target.String()}
		for _, s := range serves.sockets {
			g.listeners[s] = on
			serves.addresses = append(serves.addresses, s.bound().String())
		}
		g.served = append(g.served, serves)
	}
	for _, u := range cfg.Upstreams {
		g.hashes[u.ID()] = u.Hash
		if u.Type == config.DirectType {
			d := newDirect(u, func(o tlsconf.ClientOptions) *tlsconf.Client {
				g.secured[clientKey(u.ID(), o)] = true
				return known.tls.client(u.ID(), o)
			})
			d.resolver = known.resolver
			g.upstreams[u.ID()] = known.upstream(u, nil, d)
			continue
		}
		p := plugins[u.Type]
		up := known.upstream(u, p, p.Dialer(number, u.Name))
		up.ownClock = p.EndsHalfClosed()
		g.upstreams[u.ID()] = up
	}
	among := map[string]bool{} // those beside which a route has another
	var rules []route.Rule
	for _, r := range cfg.Routes {
		rules = append(rules, r.Match)
		to := routing{name: r.Name}
		for _, id := range r.Upstreams {
			to.upstreams = append(to.upstreams, g.upstreams[id])
			among[id] = among[id] || len(r.Upstreams) > 1
		}
		g.routes = append(g.routes, to)
	}
	g.table = route.New(rules)
	now := time.Now()
	for id, u := range g.upstreams {
		u.availability.inForce(now, among[id])
	}
	return g
}

// place gives the generation's listeners their part of the slots. It comes before
// the generation is in force.
func (g *generation) place(s *slots) {
	var ids []string
	for _, l := range g.served {
		ids = append(ids, l.id)
	}
	listeners := s.split(g.limit, ids)
	for _, l := range g.listeners {
		l.slots = listeners[l.id]
	}
}

// listener returns the one with the ID; nil: there is none.
func (g *generation) listener(id string) *listener {
	for _, l := range g.listeners {
		if l.id == id {
			return l
		}
	}
	return nil
}

// names are those that series of metrics may have.
func (g *generation) names() (listeners, routes, upstreams map[string]bool) {
	listeners, routes, upstreams = map[string]bool{}, map[string]bool{}, map[string]bool{}
	for _, l := range g.served {
		listeners[l.id] = true
	}
	for _, r := range g.routes {
		routes[r.name] = true
	}
	for id := range g.hashes {
		upstreams[id] = true
	}
	return listeners, routes, upstreams
}

// hold keeps the generation's plugins configured until release; false: it is
// retired, and there is a newer one.
func (g *generation) hold() bool {
	for {
		n := g.holders.Load()
		if n == 0 {
			return false
		}
		if g.holders.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func (g *generation) release() {
	if g.holders.Add(-1) == 0 {
		close(g.unheld)
	}
}
