package pluginhost

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// Status is what a plugin is doing.
type Status string

// The statuses.
const (
	// StatusStarting: a process is being started.
	StatusStarting Status = "starting"
	// StatusRunning: a process takes dials.
	StatusRunning Status = "running"
	// StatusBackoff: the process died, and the next waits for its start.
	StatusBackoff Status = "backoff"
	// StatusCrashLooping: the same, after several processes in a row that did
	// not last. Dials fail at once.
	StatusCrashLooping Status = "crash_looping"
	// StatusDraining: it was told to drain and takes no dials.
	StatusDraining Status = "draining"
	// StatusStopped: there is no process and there will be none.
	StatusStopped Status = "stopped"
)

// loopAfter is how many processes in a row must not have lasted for a plugin to
// be called crash-looping.
const loopAfter = 3

// State is a plugin at one moment.
type State struct {
	Name    string
	Version string
	// Source is "bundled" or the program's path.
	Source string
	Status Status
	// Since is when it came into this status.
	Since time.Time
	// PID is the process's, or 0.
	PID int
	// Restarts counts the processes that were started after the first.
	Restarts int
	// NextStart is when the next process is started; zero if none waits.
	NextStart time.Time
	// LastExit says how the last process that ended did, and LastOutput is the
	// end of what it printed, at most 4 KiB; both empty if none did.
	LastExit, LastOutput string
	// Open is how many dials are under way and relays open.
	Open int
	// Generations are the live ones, ascending.
	Generations []uint64
	// Refused are those of them that the process does not take since its restart,
	// and why. It is asked again until it does.
	Refused map[uint64]string
	// Upstreams is what it reported of those of the live generations.
	Upstreams []*pluginv1.UpstreamStatus
}

// upstreamKey names an upstream across generations.
type upstreamKey struct{ name, hash string }

// maxStatuses bounds what is kept of a plugin's reports.
const maxStatuses = 10_000

// State returns the state. The Upstreams are shared and not to be changed.
func (p *Plugin) State() State {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := State{
		Name:       p.spec.Name,
		Version:    p.info.GetVersion(),
		Source:     p.spec.Source(),
		Status:     p.status,
		Since:      p.since,
		Restarts:   p.restarts,
		NextStart:  p.next,
		LastExit:   p.lastExit,
		LastOutput: p.lastOutput,
		Refused:    maps.Clone(p.refused),
	}
	if p.proc != nil {
		s.PID, s.Open = p.proc.PID(), p.proc.tokens.len()
	}
	live := make(map[upstreamKey]bool)
	for g, upstreams := range p.generations {
		s.Generations = append(s.Generations, g)
		for _, u := range upstreams {
			live[upstreamKey{u.GetName(), u.GetConfigHash()}] = true
		}
	}
	slices.Sort(s.Generations)
	for key, u := range p.statuses {
		if live[key] {
			s.Upstreams = append(s.Upstreams, u)
		}
	}
	slices.SortFunc(s.Upstreams, func(a, b *pluginv1.UpstreamStatus) int {
		return compare(a.GetName(), b.GetName(), a.GetConfigHash(), b.GetConfigHash())
	})
	return s
}

func compare[T cmp.Ordered](a, b string, x, y T) int {
	return cmp.Or(strings.Compare(a, b), cmp.Compare(x, y))
}

// report takes what the process of an epoch says of its upstreams.
func (p *Plugin) report(epoch int, upstreams []*pluginv1.UpstreamStatus) {
	p.reporting.Lock()
	defer p.reporting.Unlock()
	p.mu.Lock()
	if epoch != p.epoch {
		p.mu.Unlock()
		return
	}
	for _, u := range upstreams {
		key := upstreamKey{u.GetName(), u.GetConfigHash()}
		if _, known := p.statuses[key]; known || len(p.statuses) < maxStatuses {
			p.statuses[key] = u
		}
	}
	p.mu.Unlock()
	if f := p.host.opts.OnReport; f != nil {
		f(p, upstreams)
	}
	p.notify()
}

// forgetReports takes back what a process has reported that has died, or was not put to
// use. note records why; it is called with mu held.
func (p *Plugin) forgetReports(note func()) {
	p.reporting.Lock()
	defer p.reporting.Unlock()
	p.mu.Lock()
	p.epoch++
	clear(p.statuses)
	note()
	p.mu.Unlock()
	if f := p.host.opts.OnLost; f != nil && p.stopping.Err() == nil {
		f(p)
	}
}

// prune forgets what was reported of upstreams that no live generation has. It
// is called with mu held.
func (p *Plugin) prune() {
	live := make(map[upstreamKey]bool)
	for _, upstreams := range p.generations {
		for _, u := range upstreams {
			live[upstreamKey{u.GetName(), u.GetConfigHash()}] = true
		}
	}
	for key := range p.statuses {
		if !live[key] {
			delete(p.statuses, key)
		}
	}
}

// notify tells the state to whoever wants it, one at a time and the newest
// last.
func (p *Plugin) notify() {
	if p.host.opts.OnState == nil {
		return
	}
	p.notifying.Lock()
	defer p.notifying.Unlock()
	p.host.opts.OnState(p.State())
}
