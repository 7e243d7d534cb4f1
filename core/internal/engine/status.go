package engine

import (
	"cmp"
	"os"
	"slices"
	"time"

	"github.com/tunneld/tunneld/core/internal/config"
	"github.com/tunneld/tunneld/core/internal/metrics"
	"github.com/tunneld/tunneld/core/status"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// Status says how the daemon is. It waits for nothing, also while a reload or a
// stop is under way.
func (e *Engine) Status() status.Status {
	// The failures first: none of them is not among the tries then.
	failed := e.failedReloads.Load()
	s := status.Status{
		Version:       e.opts.Version,
		PID:           os.Getpid(),
		Started:       e.began,
		Config:        e.opts.ConfigPath,
		Watched:       e.watched(),
		State:         e.life.is(),
		Reload:        e.lastReload.Load(),
		Reloads:       e.reloads.Load(),
		FailedReloads: failed,
		LogDropped:    e.opts.LogDropped(),
		Pump:          e.pumpStatus(),
	}
	g := e.current.Load()
	if g == nil {
		return s
	}
	s.Generation = g.number
	s.Listeners = e.listenerStatus(g)
	s.Plugins, s.Upstreams = e.pluginStatus(g)
	return s
}

func (e *Engine) pumpStatus() status.Pump {
	p := e.pump.Stats()
	return status.Pump{
		Tunnels:      p.Tunnels,
		Workers:      p.Workers,
		Paused:       p.Paused,
		PipesInUse:   p.PipesInUse,
		PipesIdle:    p.PipesIdle,
		PipesMade:    p.PipesMade,
		PipesRefused: p.PipesRefused,
		PipesSmall:   p.PipesSmall,
		BuffersInUse: p.BuffersInUse,
		BuffersMade:  p.BuffersMade,
	}
}

func (e *Engine) listenerStatus(g *generation) []status.Listener {
	tunnels := map[string]map[string]int{}
	e.metrics.Tunnels(func(key metrics.TunnelKey, t *metrics.Tunnel) {
		n := t.Active()
		if n == 0 {
			return
		}
		if tunnels[key.Listener] == nil {
			tunnels[key.Listener] = map[string]int{}
		}
		tunnels[key.Listener][key.Path.Text()] += n
	})
	var out []status.Listener
	for _, l := range g.served {
		certificates, problem := e.tls.state(ofListener, l.id)
		now := status.Listener{
			ID:          l.id,
			State:       e.slots.state(l.id).Within(e.life.is()),
			Target:      l.target,
			Connections: e.slots.open(l.id),
			FileProblem: joined(joined(e.followed.problem("listener."+l.id), problem), e.logins.problem(l.id)),
			Tunnels:     tunnels[l.id],

			Certificates: certificates,
		}
		if now.Addresses, now.LostAddresses = l.bound(); len(now.Addresses) > 0 {
			now.Address = now.Addresses[0]
		} else {
			now.State = status.Draining.Within(now.State)
		}
		out = append(out, now)
	}
	return out
}

func (e *Engine) pluginStatus(g *generation) (plugins []status.Plugin, upstreams []status.Upstream) {
	reports := map[string]*pluginv1.UpstreamStatus{} // by ID
	for _, p := range e.host.Plugins() {
		st := p.State()
		used := g.plugins[st.Name] == p
		plugins = append(plugins, status.Plugin{
			Name:       st.Name,
			Version:    st.Version,
			Source:     st.Source,
			Status:     string(st.Status),
			Since:      st.Since,
			PID:        st.PID,
			Restarts:   st.Restarts,
			NextStart:  st.NextStart,
			LastExit:   st.LastExit,
			LastOutput: st.LastOutput,
			Refused:    st.Refused[g.number],
			Open:       st.Open,
			Retired:    !used,
		})
		for _, u := range st.Upstreams {
			id := st.Name + "." + u.GetName()
			if used && g.hashes[id] == u.GetConfigHash() {
				reports[id] = u
			}
		}
	}
	slices.SortFunc(plugins, func(a, b status.Plugin) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.PID, b.PID))
	})
	for _, u := range g.cfg.Upstreams {
		upstreams = append(upstreams, e.upstreamStatus(u, g.upstreams[u.ID()], reports[u.ID()]))
	}
	return plugins, upstreams
}

func (e *Engine) upstreamStatus(u config.Upstream, of upstream, report *pluginv1.UpstreamStatus) status.Upstream {
	now := of.gate.status()
	s := status.Upstream{
		ID:             u.ID(),
		State:          now.state.Within(e.life.is()),
		Health:         report.GetHealth().Text(),
		Message:        report.GetMessage(),
		Connections:    now.open,
		MaxConnections: now.limit,
		Waiting:        now.waiting,
		Unusable:       of.availability.status(time.Now()),
		Unreleased:     int(report.GetUnreleased()),
		FileProblem:    joined(e.followed.problem("upstream."+u.ID()), report.GetFileProblem()),
	}
	for _, c := range report.GetCertificates() {
		s.Certificates = append(s.Certificates, status.Certificate{File: c.GetFile(), NotAfter: c.GetNotAfter().AsTime()})
	}
	if u.Type == config.DirectType {
		s.Health = pluginv1.Health_HEALTH_OK.Text()
		var problem string
		s.Certificates, problem = e.tls.state(ofUpstream, u.ID())
		s.FileProblem = joined(s.FileProblem, problem)
	}
	if t := report.GetCredentialExpires(); t != nil {
		s.CredentialExpires = t.AsTime()
	}
	if t := report.GetCredentialRenewed(); t != nil {
		s.CredentialRenewed = t.AsTime()
	}
	return s
}

// joined are two reasons of which either may be empty.
func joined(a, b string) string {
	if a != "" && b != "" {
		return a + "; " + b
	}
	return a + b
}

// watched says whether the daemon reloads by itself.
func (e *Engine) watched() bool {
	g := e.current.Load()
	return g != nil && g.cfg.Daemon.Watch
}
