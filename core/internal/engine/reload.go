package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
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
	e.notify(nil)
	cfg, diags := config.Parse(e.opts.ConfigPath)
	diags, changes, err := e.replace(ctx, cfg, diags)
	r.Duration = time.Since(r.At)
	r.Generation, r.Changes = e.number, changes
	var text strings.Builder
	_ = diags.Write(&text) // a Builder takes everything
	r.Diagnostics = text.String()
	diags.Log(e.log)
	e.reloads.Add(1)
	if err != nil {
		r.Error, r.Invalid = err.Error(), errors.Is(err, ErrInvalid)
		e.failedReloads.Add(1)
		e.log.Error("reload failed, the old configuration stays in force", "generation", r.Generation, "err", err, "problems", len(diags))
	} else {
		e.log.Info("reloaded", "generation", r.Generation, "changes", len(changes), "duration", r.Duration.Round(time.Millisecond))
	}
	e.lastReload.Store(&r)
	e.notify(&r)
	return r
}

func (e *Engine) notify(outcome *status.Reload) {
	g := e.current.Load()
	e.opts.Notify(status.Event{Reload: outcome, Generation: g.number, Listeners: len(g.served)})
}

// replace puts cfg in force: check, configure, bind, swap, retire. Every step
// before the swap is undone where a later one fails. diags are those of the
// parser; with errors among them cfg is only checked further, so that the user
// is told of all problems at once. It returns what has changed. It is called
// with turn held, or before anybody else has the engine.
func (e *Engine) replace(ctx context.Context, cfg *config.Config, diags config.Diagnostics) (config.Diagnostics, []string, error) {
	e.number++
	p := &preparation{host: e.host, opts: e.opts, cfg: cfg, diags: diags, running: e.running}
	b, err := e.prepare(ctx, p)
	if err != nil {
		if ctx.Err() != nil {
			err = errors.Join(context.Cause(ctx), err)
		}
		return p.diags, nil, errors.Join(err, p.undo(context.WithoutCancel(ctx), e.number))
	}
	e.opts.SetLog(cfg.Log)
	next := newGeneration(e.number, cfg, p.plugins, b.next)
	old := e.current.Swap(next)
	e.commit(b, cfg)
	e.commitServers(b)
	e.metrics.Retain(next.names())
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
	var kept []runningPlugin
	for _, p := range e.running {
		if uses(used, p.Plugin) {
			kept = append(kept, p)
			continue
		}
		var dialing []<-chan struct{}
		for _, r := range e.retired {
			if uses(r.plugins, p.Plugin) {
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
	running []runningPlugin // only read

	plugins    map[string]*pluginhost.Plugin // by type
	started    []runningPlugin
	configured []*pluginhost.Plugin
}

type runningPlugin struct {
	*pluginhost.Plugin
	key string // see runningKey
}

// check starts the plugins that are not running yet, decodes the upstreams'
// bodies against their schemas and lets them validate the values.
func (p *preparation) check(ctx context.Context) error {
	p.plugins = map[string]*pluginhost.Plugin{}
	schemas := map[string]*pluginv1.Block{}
	for _, name := range p.cfg.PluginTypes() {
		plugin := p.plugin(ctx, name)
		if plugin == nil {
			continue
		}
		p.plugins[name] = plugin
		schemas[name] = plugin.Schema()
	}
	p.diags = append(p.diags, p.cfg.DecodeUpstreams(schemas)...)
	for _, u := range p.cfg.Upstreams {
		plugin := p.plugins[u.Type]
		if plugin == nil || u.Hash == "" {
			continue
		}
		found, err := plugin.Validate(ctx, wire(u))
		if err != nil {
			return fmt.Errorf("validate upstream %q: %w", u.ID(), err)
		}
		for _, d := range found {
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
	key := runningKey(spec)
	for _, plugin := range p.running {
		if plugin.key == key && !plugin.Down() {
			return plugin.Plugin
		}
	}
	plugin, err := p.host.Start(ctx, spec)
	if err != nil {
		return fail(obstacle(p.cfg, blockID, "", fmt.Sprintf("the plugin %q does not start", name), err.Error()))
	}
	p.started = append(p.started, runningPlugin{plugin, key})
	return plugin
}

// runningKey is the same for a running plugin and a spec that would start just
// that: an equal spec, and no other file where its program was.
func runningKey(spec pluginhost.Spec) string {
	key := spec.Key()
	if spec.Bundled {
		return key // part of this program, whatever has become of its file
	}
	st, err := os.Stat(spec.Command[0])
	if err != nil {
		return key // the start says what is wrong
	}
	key += fmt.Sprintf(" %d %d", st.Size(), st.ModTime().UnixNano())
	if sys, ok := st.Sys().(*syscall.Stat_t); ok {
		key += fmt.Sprintf(" %d", sys.Ino)
	}
	return key
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
