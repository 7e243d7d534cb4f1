package pluginhost

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tunneld/tunneld/core/internal/tunnel"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// Validate has the plugin check one upstream's values, and say what the defaults
// of common attributes are. It has no side effects.
func (p *Plugin) Validate(ctx context.Context, u *pluginv1.Upstream) (*pluginv1.ValidateConfigResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, p.host.opts.CallTimeout)
	defer cancel()
	proc, err := p.acquire(ctx)
	if err != nil {
		return nil, p.callFailed(fmt.Sprintf("check upstream %q", u.GetName()), err)
	}
	r, err := proc.service.ValidateConfig(ctx, &pluginv1.ValidateConfigRequest{Upstream: u})
	if err != nil {
		return nil, p.callFailed(fmt.Sprintf("check upstream %q", u.GetName()), proc.explain(ctx, err))
	}
	return r, nil
}

// Configure adds a generation: all upstreams of the plugin in it. It is
// remembered, so that a restarted process gets it too; the upstreams are not to
// be changed any more. On an error, or with a diagnostic that is one, nothing of
// it is kept.
func (p *Plugin) Configure(ctx context.Context, generation uint64, upstreams []*pluginv1.Upstream) ([]*pluginv1.Diagnostic, error) {
	what := fmt.Sprintf("configure generation %d", generation)
	ctx, cancel := context.WithTimeout(ctx, p.host.opts.CallTimeout)
	defer cancel()
	proc, err := p.acquireLocked(ctx)
	if err != nil {
		return nil, p.callFailed(what, err)
	}
	defer p.unlock()
	if _, ok := p.generations[generation]; ok {
		return nil, p.callFailed(what, errors.New("it exists already"))
	}
	diagnostics, err := p.configure(ctx, proc, generation, upstreams)
	if err != nil {
		return nil, p.callFailed(what, err)
	}
	if !slices.ContainsFunc(diagnostics, isError) {
		p.mu.Lock()
		p.generations[generation] = slices.Clone(upstreams)
		p.mu.Unlock()
		p.notify()
	}
	return diagnostics, nil
}

// Carry adds a generation with the upstreams of one that is live, where the plugin cannot
// be asked now, or refuses that one since its restart: the new one is then offered to it
// together with the old. Otherwise it does nothing and says false: see Configure.
func (p *Plugin) Carry(ctx context.Context, from, to uint64) bool {
	if p.lock(ctx) != nil {
		return false
	}
	defer p.unlock()
	down := p.Down()
	p.mu.Lock()
	upstreams, live := p.generations[from]
	why, refused := p.refused[from]
	if live = live && (down || refused); live {
		p.generations[to] = upstreams
		if refused {
			p.refused[to] = why
		}
	}
	p.mu.Unlock()
	p.notify()
	return live
}

// acquireLocked returns the running process with config held, so that it stays
// the one that a restart has to match.
func (p *Plugin) acquireLocked(ctx context.Context) (*Process, error) {
	for {
		proc, err := p.acquire(ctx)
		if err != nil {
			return nil, err
		}
		if err := p.lock(ctx); err != nil {
			return nil, err
		}
		p.mu.Lock()
		same := p.proc == proc
		p.mu.Unlock()
		if same {
			return proc, nil
		}
		p.unlock()
	}
}

// Release drops a generation; an unknown one is not an error. Tunnels that were
// made under it live on.
func (p *Plugin) Release(ctx context.Context, generation uint64) error {
	what := fmt.Sprintf("release generation %d", generation)
	ctx, cancel := context.WithTimeout(ctx, p.host.opts.CallTimeout)
	defer cancel()
	if err := p.lock(ctx); err != nil {
		return p.callFailed(what, err)
	}
	defer p.unlock()
	p.mu.Lock()
	_, known := p.generations[generation]
	delete(p.generations, generation)
	delete(p.refused, generation)
	p.prune()
	proc := p.proc
	p.mu.Unlock()
	p.notify()
	if !known || proc == nil {
		// The next process never learns of it.
		return nil
	}
	_, err := proc.service.Release(ctx, &pluginv1.ReleaseRequest{Generation: generation})
	if err = proc.explain(ctx, err); err == nil || errors.Is(err, tunnel.ErrPluginDied) {
		return nil
	}
	return p.callFailed(what, err)
}

// Drain has the plugin refuse dials, for good, and waits until its relays have
// ended, or for ctx. A process that dies meanwhile is not started again.
func (p *Plugin) Drain(ctx context.Context) error {
	p.turn(StatusDraining, time.Time{})
	p.mu.Lock()
	proc := p.proc
	p.mu.Unlock()
	if proc == nil {
		return nil
	}
	r, err := proc.service.Drain(ctx, &pluginv1.DrainRequest{})
	switch err = proc.explain(ctx, err); {
	case errors.Is(err, tunnel.ErrPluginDied):
		return nil
	case err != nil:
		return p.callFailed("drain", err)
	case r.GetRemaining() > 0:
		return p.callFailed("drain", fmt.Errorf("%d tunnels are left", r.GetRemaining()))
	}
	return nil
}

func (p *Plugin) callFailed(what string, err error) error {
	return fmt.Errorf("plugin %q: %s: %w", p.spec.Name, what, err)
}

func (p *Process) configure(ctx context.Context, bound time.Duration, generation uint64, upstreams []*pluginv1.Upstream) ([]*pluginv1.Diagnostic, error) {
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	r, err := p.service.Configure(ctx, &pluginv1.ConfigureRequest{Generation: generation, Upstreams: upstreams})
	if err != nil {
		return nil, p.explain(ctx, err)
	}
	return r.GetDiagnostics(), nil
}

// explain says why a call failed: by the process's end, where that is why. It
// returns nil for nil.
func (p *Process) explain(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	code := status.Code(err)
	if ctx.Err() == nil && (code == codes.Unavailable || code == codes.Canceled) && p.child.wait(noticeWait) {
		return p.died()
	}
	return callError(err)
}
