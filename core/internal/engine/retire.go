package engine

import (
	"context"
	"slices"
	"time"

	"github.com/tunneld/tunneld/core/internal/pluginhost"
)

// retire releases a generation in its plugins once no dial holds it any more.
func (e *Engine) retire(g *generation) {
	g.release()
	e.retired = append(slices.DeleteFunc(e.retired, func(r retired) bool { return r.settled() }), retired{g.plugins, g.unheld})
	e.retiring.Go(func() {
		<-g.unheld
		for name, p := range g.plugins {
			ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
			if err := p.Release(ctx, g.number); err != nil {
				e.log.Debug("release of a generation", "plugin", name, "generation", g.number, "err", err)
			}
			cancel()
		}
	})
}

// retired is a generation that is not in force any more, as long as dials hold it.
type retired struct {
	plugins map[string]*pluginhost.Plugin
	unheld  <-chan struct{}
}

func (r retired) settled() bool {
	select {
	case <-r.unheld:
		return true
	default:
		return false
	}
}

// callTimeout bounds a call to a plugin that nobody waits for.
const callTimeout = 10 * time.Second

// retirePlugins drains and stops the plugins that the generation in force does
// not use. They take dials until nobody holds a generation that uses them: a slow
// client's may be older than the last.
func (e *Engine) retirePlugins(used map[string]*pluginhost.Plugin, drain time.Duration) {
	var kept []*pluginhost.Plugin
	for _, p := range e.running {
		if uses(used, p) {
			kept = append(kept, p)
			continue
		}
		var dialing []<-chan struct{}
		for _, r := range e.retired {
			if uses(r.plugins, p) {
				dialing = append(dialing, r.unheld)
			}
		}
		e.retiring.Go(func() {
			ctx, cancel := context.WithTimeout(e.dialing, drain)
			defer cancel()
			for _, unheld := range dialing {
				select {
				case <-unheld:
				case <-ctx.Done():
				}
			}
			if err := p.Drain(ctx); err != nil && e.dialing.Err() == nil {
				e.log.Warn("a plugin that is no longer used did not drain in time", "plugin", p.Info().GetName(), "err", err)
			}
			if err := p.Stop(context.WithoutCancel(ctx)); err != nil {
				e.log.Warn("stop of a plugin that is no longer used", "plugin", p.Info().GetName(), "err", err)
			}
		})
	}
	e.running = kept
}

func uses(plugins map[string]*pluginhost.Plugin, p *pluginhost.Plugin) bool {
	for _, u := range plugins {
		if u == p {
			return true
		}
	}
	return false
}
