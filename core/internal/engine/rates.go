package engine

import (
	"sync"

	"github.com/tunneld/tunneld/core/internal/config"
	"github.com/tunneld/tunneld/core/internal/metrics"
	"github.com/tunneld/tunneld/core/internal/splice"
)

// rates are the bandwidths of blocks, by ID. They outlive generations: an open tunnel keeps
// to what is in force for the names of the blocks that it was made with.
type rates struct {
	pump *splice.Pump

	mu      sync.Mutex
	blocks  map[string]*splice.Rate
	tunnels map[blocksOf]*splice.Rates
}

// blocksOf names the blocks of a tunnel.
type blocksOf struct{ listener, route, upstream string }

func (b blocksOf) ids() [3]string {
	return [3]string{"listener." + b.listener, "route." + b.route, "upstream." + b.upstream}
}

func newRates(pump *splice.Pump) *rates {
	return &rates{pump: pump, blocks: map[string]*splice.Rate{}, tunnels: map[blocksOf]*splice.Rates{}}
}

// of returns what limits a tunnel of some blocks.
func (r *rates) of(b blocksOf) *splice.Rates {
	r.mu.Lock()
	defer r.mu.Unlock()
	shared := r.tunnels[b]
	if shared == nil {
		ids := b.ids()
		shared = splice.NewRates(r.block(ids[0]), r.block(ids[1]), r.block(ids[2]))
		r.tunnels[b] = shared
	}
	return shared
}

// block is called with mu held.
func (r *rates) block(id string) *splice.Rate {
	one := r.blocks[id]
	if one == nil {
		one = &splice.Rate{}
		r.blocks[id] = one
	}
	return one
}

// bandwidths are those of a configuration, by block ID.
func bandwidths(cfg *config.Config) map[string]splice.Bandwidth {
	all := map[string]splice.Bandwidth{}
	for _, l := range cfg.Listeners {
		all["listener."+l.ID()] = splice.Bandwidth(l.Bandwidth)
	}
	for _, r := range cfg.Routes {
		all["route."+r.Name] = splice.Bandwidth(r.Bandwidth)
	}
	for _, u := range cfg.Upstreams {
		all["upstream."+u.ID()] = splice.Bandwidth(u.Common.Bandwidth)
	}
	return all
}

// inForce applies a configuration, also to the tunnels that are open. A block that it does
// not have limits nothing any more.
func (r *rates) inForce(cfg *config.Config) {
	r.mu.Lock()
	defer r.mu.Unlock()
	limits := map[*splice.Rate]splice.Bandwidth{}
	for _, gone := range r.blocks {
		limits[gone] = splice.Bandwidth{}
	}
	for id, b := range bandwidths(cfg) {
		limits[r.block(id)] = b
	}
	r.pump.Limit(limits)
}

// retain forgets the blocks that are neither in a configuration nor of open tunnels.
func (r *rates) retain(cfg *config.Config, open map[blocksOf]bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	used := bandwidths(cfg)
	for b := range r.tunnels {
		if !open[b] {
			delete(r.tunnels, b)
			continue
		}
		for _, id := range b.ids() {
			used[id] = splice.Bandwidth{}
		}
	}
	for id := range r.blocks {
		if _, is := used[id]; !is {
			delete(r.blocks, id)
		}
	}
}

// openTunnels are the blocks of those tunnels that are open, or are about to be.
func (e *Engine) openTunnels() map[blocksOf]bool {
	open := map[blocksOf]bool{}
	e.metrics.Tunnels(func(key metrics.TunnelKey, t *metrics.Tunnel) {
		if t.Active() > 0 {
			open[blocksOf{key.Listener, key.Route, key.Upstream}] = true
		}
	})
	return open
}
