package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tunneld/tunneld/core/internal/config"
	"github.com/tunneld/tunneld/core/internal/pluginhost"
	"github.com/tunneld/tunneld/core/internal/status"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// Reload reads the configuration again and puts it in force, all or nothing: on
// any error everything stays as it was. Established tunnels live on in any
// case, and listeners that did not change keep their socket. Reloads that are
// asked for at the same time come one after the other. The outcome is logged as
// well, with the diagnostics.
func (e *Engine) Reload(ctx context.Context) status.Reload {
	return e.ReloadWith(ctx, status.ReloadOptions{})
}

// ReloadWith is Reload with options.
func (e *Engine) ReloadWith(ctx context.Context, o status.ReloadOptions) status.Reload {
	return e.inTurn(ctx, func(ctx context.Context, r *status.Reload) {
		e.notify(nil)
		cfg, diags := config.Parse(e.opts.ConfigPath)
		if len(e.current.Load().served) > 0 && !o.AllowEmpty {
			diags = wantListener(cfg, diags, e.opts.ConfigPath)
		}
		diags, err := e.renew(ctx, r, renewal{cfg: cfg, diags: diags})
		e.reloads.Add(1)
		if err != nil {
			e.failedReloads.Add(1)
			e.log.Error("reload failed, the old configuration stays in force", "generation", r.Generation, "err", err, "problems", len(diags))
		} else {
			e.log.Info("reloaded", "generation", r.Generation, "changes", len(r.Changes), "duration", r.Duration.Round(time.Millisecond))
		}
		e.lastReload.Store(r)
		e.notify(r)
	})
}

// RestartPlugin starts a plugin's program beside its process, and has the new one
// take its place as in a reload: all or nothing, and tunnels live on. The configuration
// is the one in force; what has become of its files is of no matter. A plugin that no
// upstream has is an error in the outcome.
func (e *Engine) RestartPlugin(ctx context.Context, name string) status.Reload {
	return e.inTurn(ctx, func(ctx context.Context, r *status.Reload) {
		cfg := e.current.Load().cfg
		if used := cfg.PluginTypes(); !slices.Contains(used, name) {
			r.Error = fmt.Sprintf("no upstream has the plugin %q; in use: %s", name, cmp.Or(strings.Join(used, ", "), "none"))
			return
		}
		if _, err := e.renew(ctx, r, renewal{cfg: cfg.Undecoded(), fresh: name}); err != nil {
			e.log.Error("restart of a plugin failed, its process stays", "plugin", name, "err", err)
			return
		}
		e.log.Info("plugin restarted on demand", "plugin", name, "generation", r.Generation, "duration", r.Duration.Round(time.Millisecond))
	})
}

// inTurn calls change when neither a reload nor a restart is under way, and completes
// the outcome where it is not called. Its context ends with ctx and with a stop.
func (e *Engine) inTurn(ctx context.Context, change func(context.Context, *status.Reload)) status.Reload {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(e.reloading, func() { cancel(errStopping) })()
	select {
	case e.turn <- struct{}{}:
		defer func() { <-e.turn }()
	case <-ctx.Done():
	}
	r := status.Reload{At: time.Now()}
	if e.stopping.Load() {
		// ctx may not know it yet: what cancels it runs beside this.
		cancel(errStopping)
	}
	if ctx.Err() != nil {
		// A stop, or who asked did not wait for its turn.
		r.Error = context.Cause(ctx).Error()
		return r
	}
	change(ctx, &r)
	return r
}

// renewal is a configuration to be put in force.
type renewal struct {
	cfg *config.Config
	// diags are those of the parser.
	diags config.Diagnostics
	// fresh is the plugin that is started anew in any case, or empty.
	fresh string
}

// renew puts a configuration in force and completes the outcome. It returns all that
// is told of it. It is called with turn held.
func (e *Engine) renew(ctx context.Context, r *status.Reload, n renewal) (config.Diagnostics, error) {
	diags, changes, err := e.replace(ctx, n)
	diags = diags.Problems() // notes are the start's
	r.Duration = time.Since(r.At)
	r.Generation, r.Changes = e.number, changes
	var text strings.Builder
	_ = diags.Write(&text) // a Builder takes everything
	r.Diagnostics = text.String()
	diags.Log(e.log)
	if err != nil {
		r.Error, r.Invalid = err.Error(), errors.Is(err, ErrInvalid)
	}
	return diags, err
}

func (e *Engine) notify(outcome *status.Reload) {
	g := e.current.Load()
	e.opts.Notify(status.Event{Reload: outcome, Generation: g.number, Listeners: len(g.served)})
}

// replace puts a configuration in force: check, configure, bind, swap, retire. Every
// step before the swap is undone where a later one fails. With errors among the
// parser's diagnostics it is only checked further, so that the user is told of all
// problems at once. It returns what has changed. It is called with turn held.
func (e *Engine) replace(ctx context.Context, n renewal) (config.Diagnostics, []string, error) {
	e.number++
	cfg := n.cfg
	p := &preparation{host: e.host, opts: e.opts, cfg: cfg, diags: n.diags, running: e.running, fresh: n.fresh}
	b, err := e.prepare(ctx, p)
	if err != nil {
		if ctx.Err() != nil {
			err = errors.Join(context.Cause(ctx), err)
		}
		return p.diags, nil, errors.Join(err, p.undo(context.WithoutCancel(ctx), e.number))
	}
	e.opts.SetLog(cfg.Log)
	next := newGeneration(e.number, cfg, p.plugins, b.next, e.gates)
	next.limit.warn(e.log)
	next.place(e.slots)
	old := e.current.Swap(next)
	e.commit(b, cfg)
	e.commitServers(b)
	listeners, routes, upstreams := next.names()
	e.metrics.Retain(listeners, routes, upstreams)
	e.gates.retain(upstreams)
	e.running = append(e.running, p.started...)
	if old == nil {
		return p.diags, nil, nil
	}
	e.retire(old)
	e.retirePlugins(p.plugins, cfg.Daemon.DrainTimeout)
	return p.diags, changes(old, next), nil
}

// prepare does what comes before the swap.
func (e *Engine) prepare(ctx context.Context, p *preparation) (*binding, error) {
	if err := p.check(ctx); err != nil {
		return nil, err
	}
	if err := p.configure(ctx, e.number); err != nil {
		return nil, err
	}
	b, problems, err := e.bind(ctx, p.cfg)
	p.diags = append(p.diags, problems...)
	return b, err
}

// verdict is the error that diagnostics come to, or nil. An error of the
// configuration itself counts most: another try does not help against it.
func verdict(diags config.Diagnostics) error {
	var err error
	for _, d := range diags {
		switch {
		case d.Warning:
		case !d.Machine:
			return ErrInvalid
		default:
			err = errUnavailable
		}
	}
	return err
}

// obstacle makes an error about a block, or an attribute in it, that asks for what
// the machine does not give.
func obstacle(cfg *config.Config, blockID, attribute, summary, detail string) config.Diagnostic {
	d := cfg.BlockDiagnostic(blockID, attribute, summary, detail)
	d.Machine = true
	return d
}

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

// preparation is what a configuration needs before it can be put in force.
type preparation struct {
	host    *pluginhost.Host
	opts    Options
	cfg     *config.Config
	diags   config.Diagnostics
	running []*pluginhost.Plugin // only read
	fresh   string               // see renewal

	plugins    map[string]*pluginhost.Plugin // by type
	started    []*pluginhost.Plugin
	configured []*pluginhost.Plugin
}

// check starts the plugins that are not running yet, decodes the upstreams'
// bodies against their schemas and lets them validate the values.
func (p *preparation) check(ctx context.Context) error {
	p.plugins = map[string]*pluginhost.Plugin{}
	schemas := map[string]config.PluginSchema{}
	for _, name := range p.cfg.PluginTypes() {
		plugin := p.plugin(ctx, name)
		if plugin == nil {
			continue
		}
		p.plugins[name] = plugin
		schemas[name] = config.PluginSchema{Block: plugin.Schema(), CommonNames: plugin.Info().GetCommonNames()}
	}
	p.diags = append(p.diags, p.cfg.DecodeUpstreams(schemas)...)
	for i, u := range p.cfg.Upstreams {
		plugin := p.plugins[u.Type]
		if plugin == nil || u.Hash == "" {
			continue
		}
		found, err := plugin.Validate(ctx, wire(u))
		if err != nil {
			return fmt.Errorf("validate upstream %q: %w", u.ID(), err)
		}
		p.diags = append(p.diags, defaultNotes(p.cfg, u, found.GetDefaults())...)
		p.cfg.Upstreams[i].Common = u.Common.Or(found.GetDefaults())
		for _, d := range found.GetDiagnostics() {
			p.diags = append(p.diags, p.cfg.PluginDiagnostic(u.ID(), d))
		}
	}
	// The parser's, the decoder's and the plugins', as the user reads the file.
	p.diags.Sort()
	return verdict(p.diags)
}

func wire(u config.Upstream) *pluginv1.Upstream {
	return &pluginv1.Upstream{Name: u.Name, ConfigJson: u.JSON, ConfigHash: u.Hash}
}

// plugin finds the running plugin for an upstream type, or starts it; nil where
// that fails. One that keeps dying is started beside the old: it may die of the
// configuration that is now to be mended.
func (p *preparation) plugin(ctx context.Context, name string) *pluginhost.Plugin {
	blockID, told := "upstream."+p.firstOf(name), false
	if b := pluginBlock(p.cfg, name); b != nil {
		blockID, told = "plugin."+name, b.Wrong
	}
	fail := func(d config.Diagnostic) *pluginhost.Plugin {
		if !told {
			p.diags = append(p.diags, d)
		}
		return nil
	}
	spec, err := findPlugin(name, p.cfg, p.opts)
	if err != nil {
		return fail(p.cfg.BlockDiagnostic(blockID, "", fmt.Sprintf("there is no plugin %q", name), err.Error()))
	}
	if err := pluginhost.Exposed(spec); err != nil && !spec.Vouched() {
		d := p.cfg.BlockDiagnostic(blockID, "", fmt.Sprintf("others can change the plugin %q", name), err.Error()+". Whoever does has what they wrote run with the daemon's rights.")
		d.Warning = true
		p.diags = append(p.diags, d)
	}
	identity := pluginhost.Identity(ctx, spec)
	for _, plugin := range p.running {
		if plugin.Identity() == identity && name != p.fresh && !plugin.Down() {
			return plugin
		}
	}
	plugin, err := p.host.Start(ctx, spec)
	if err != nil {
		return fail(obstacle(p.cfg, blockID, "", fmt.Sprintf("the plugin %q does not start", name), err.Error()))
	}
	p.started = append(p.started, plugin)
	return plugin
}

func (p *preparation) firstOf(pluginType string) string {
	for _, u := range p.cfg.Upstreams {
		if u.Type == pluginType {
			return u.ID()
		}
	}
	return pluginType
}

// configure gives each plugin its upstreams under the new generation's number.
func (p *preparation) configure(ctx context.Context, number uint64) error {
	for name, plugin := range p.plugins {
		var upstreams []*pluginv1.Upstream
		for _, u := range p.cfg.Upstreams {
			if u.Type == name {
				upstreams = append(upstreams, wire(u))
			}
		}
		p.configured = append(p.configured, plugin)
		found, err := plugin.Configure(ctx, number, upstreams)
		if err != nil {
			return fmt.Errorf("configure plugin %q: %w", name, err)
		}
		for _, d := range found {
			// Warnings were told by the validation.
			if d.GetSeverity() == pluginv1.Severity_SEVERITY_ERROR {
				p.diags = append(p.diags, p.cfg.PluginDiagnostic(name+"."+d.GetUpstream(), d))
			}
		}
	}
	return verdict(p.diags)
}

// undo takes the new generation out of the plugins again and stops those that
// were started for it.
func (p *preparation) undo(ctx context.Context, number uint64) error {
	var errs []error
	for _, plugin := range p.configured {
		errs = append(errs, plugin.Release(ctx, number))
	}
	for _, plugin := range p.started {
		errs = append(errs, plugin.Stop(ctx))
	}
	return errors.Join(errs...)
}
