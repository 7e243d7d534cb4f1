package pluginhost

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// restore gives a new process all live generations. It returns those that it
// did not take, with the reason. It is called with config held.
func (p *Plugin) restore(proc *Process) (map[uint64]string, error) {
	refused := make(map[uint64]string)
	for _, g := range p.State().Generations {
		why, err := p.offer(proc, g)
		if err != nil {
			return nil, fmt.Errorf("configure generation %d again: %w", g, err)
		}
		if why != "" {
			refused[g] = why
			p.log.Error("restarted plugin rejects a configuration that it accepted before; it is asked again until it accepts", "generation", g, "err", why)
		}
	}
	return refused, nil
}

// offer gives a process a generation that another has taken. It returns why the
// process does not take it, if it does not. It is called with config held.
func (p *Plugin) offer(proc *Process, generation uint64) (refusal string, err error) {
	diagnostics, err := p.configure(p.stopping, proc, generation, p.generations[generation])
	if err != nil {
		return "", err
	}
	i := slices.IndexFunc(diagnostics, isError)
	if i < 0 {
		return "", nil
	}
	why := diagnostics[i].GetSummary()
	if name := diagnostics[i].GetUpstream(); name != "" {
		// One that fails takes all others of the plugin with it.
		why = fmt.Sprintf("upstream %q: %s", name, why)
	}
	return why, nil
}

// offerAgain gives a process what it refused at its start: the plugin may have met
// a file in the middle of its rotation.
func (p *Plugin) offerAgain(proc *Process) {
	if p.lock(p.stopping) != nil {
		return
	}
	defer p.unlock()
	for _, g := range slices.Sorted(maps.Keys(p.State().Refused)) {
		why, err := p.offer(proc, g)
		if err != nil {
			p.log.Debug("configure a restarted plugin again", "generation", g, "err", err)
			continue
		}
		p.mu.Lock()
		if p.refused[g] = why; why == "" {
			delete(p.refused, g)
		}
		p.mu.Unlock()
		if why == "" {
			p.log.Info("restarted plugin accepts its configuration again", "generation", g)
		}
	}
	p.notify()
}

// configure gives a process a generation, and sees to it that it has none after an
// error.
func (p *Plugin) configure(ctx context.Context, proc *Process, generation uint64, upstreams []*pluginv1.Upstream) ([]*pluginv1.Diagnostic, error) {
	diagnostics, err := proc.configure(ctx, p.host.opts.CallTimeout, generation, upstreams)
	if err != nil && p.stopping.Err() == nil && (ctx.Err() != nil || errors.Is(err, context.DeadlineExceeded)) {
		// Whether the plugin has it is not known: it may have answered too late.
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_, _ = proc.service.Release(late, &pluginv1.ReleaseRequest{Generation: generation})
	}
	return diagnostics, err
}

func isError(d *pluginv1.Diagnostic) bool {
	return d.GetSeverity() != pluginv1.Severity_SEVERITY_WARNING
}

// refuses says that the running process does not take all that it should.
func (p *Plugin) refuses() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.status == StatusRunning && len(p.refused) > 0
}

// refusal is why a generation cannot be dialed since the last restart; nil: it can.
func (p *Plugin) refusal(generation uint64) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if why, refused := p.refused[generation]; refused {
		return &downError{what: "it was restarted and no longer accepts its configuration: " + why, hint: refusedHint}
	}
	return nil
}
