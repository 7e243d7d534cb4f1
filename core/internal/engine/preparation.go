package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/tunneld/tunneld/core/diag"
	"github.com/tunneld/tunneld/core/internal/config"
	"github.com/tunneld/tunneld/core/internal/pluginhost"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// preparation is what a configuration needs of its plugins before it can be put in
// force.
type preparation struct {
	host    *pluginhost.Host
	opts    Options
	cfg     *config.Config
	diags   diag.Diagnostics
	running []*pluginhost.Plugin // only read
	fresh   string               // see renewal
	like    *generation          // the one in force, with only; else nil
	only    []string             // see renewal
	number  uint64               // of the generation; only configure and release want it

	plugins    map[string]*pluginhost.Plugin // by type
	started    []*pluginhost.Plugin
	configured []*pluginhost.Plugin
}

// check starts the plugins that are not running yet, decodes the upstreams' bodies
// against their schemas, and has the plugins validate the values.
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
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	p.diags = append(p.diags, p.cfg.DecodeUpstreams(schemas)...)
	for i, u := range p.cfg.Upstreams {
		plugin := p.plugins[u.Type]
		if plugin == nil || u.Hash == "" {
			continue
		}
		if same := p.same(u, plugin); same != nil {
			p.cfg.Upstreams[i].Common = same.Common
			continue
		}
		found, err := plugin.Validate(ctx, u.Wire())
		if err != nil {
			return fmt.Errorf("validate upstream %q: %w", u.ID(), err)
		}
		p.diags = append(p.diags, defaultNotes(p.cfg, u, found.GetDefaults())...)
		p.cfg.Upstreams[i].Common = u.Common.Or(found.GetDefaults())
		for _, d := range found.GetDiagnostics() {
			p.diags = append(p.diags, p.cfg.PluginDiagnostic(u.ID(), d))
		}
	}
	p.diags = append(p.diags, targetNotes(p.cfg, p.opts.own)...)
	// The parser's, the decoder's and the plugins', as the user reads the file.
	p.diags.Sort()
	return verdict(p.diags)
}

// same returns an upstream as it is in force, where it cannot be another, and its
// plugin's process neither; else nil.
func (p *preparation) same(u config.Upstream, in *pluginhost.Plugin) *config.Upstream {
	if p.like == nil || p.like.plugins[u.Type] != in || slices.Contains(p.only, "upstream."+u.ID()) {
		return nil
	}
	i := slices.IndexFunc(p.like.cfg.Upstreams, func(had config.Upstream) bool { return had.Type == u.Type && had.Name == u.Name })
	return &p.like.cfg.Upstreams[i]
}

// plugin finds the running plugin for an upstream type, or starts it; nil where
// that fails. One that keeps dying is started beside the old: it may die of the
// configuration that is now to be mended.
func (p *preparation) plugin(ctx context.Context, name string) *pluginhost.Plugin {
	blockID, located := "upstream."+p.firstOf(name), false
	if b := pluginBlock(p.cfg, name); b != nil {
		blockID, located = "plugin."+name, b.Wrong
	}
	fail := func(d diag.Diagnostic) *pluginhost.Plugin {
		if !located {
			p.diags = append(p.diags, d)
		}
		return nil
	}
	if p.like != nil && name != p.fresh {
		if plugin := p.like.plugins[name]; plugin != nil && (!p.concerned(name) || !plugin.Down()) {
			return plugin
		}
	}
	found, err := reading(ctx, func() (f program) {
		if f.spec, f.err = findPlugin(name, p.cfg, p.opts); f.err == nil {
			f.exposed, f.identity = pluginhost.Exposed(f.spec), pluginhost.Identity(ctx, f.spec)
		}
		return f
	})
	if err != nil {
		return nil // check says so
	}
	if found.err != nil {
		return fail(p.cfg.BlockDiagnostic(blockID, "", fmt.Sprintf("there is no plugin %q", name), found.err.Error()))
	}
	if found.exposed != nil && !found.spec.Vouched() {
		d := p.cfg.BlockDiagnostic(blockID, "", fmt.Sprintf("others can change the plugin %q", name), found.exposed.Error()+". Whoever does runs code with the daemon's rights.")
		d.Warning = true
		p.diags = append(p.diags, d)
	}
	for _, plugin := range p.running {
		if plugin.Identity() == found.identity && name != p.fresh && !plugin.Down() {
			return plugin
		}
	}
	plugin, err := p.host.Start(ctx, found.spec)
	if err != nil {
		return fail(obstacle(p.cfg, blockID, "", fmt.Sprintf("the plugin %q does not start", name), err.Error()))
	}
	p.started = append(p.started, plugin)
	return plugin
}

// program is what the files of a plugin say about it.
type program struct {
	spec     pluginhost.Spec
	err      error // there is none
	exposed  error
	identity string
}

// concerned says whether an upstream of the plugin may differ from the one in force.
func (p *preparation) concerned(pluginType string) bool {
	return slices.ContainsFunc(p.only, func(block string) bool { return strings.HasPrefix(block, "upstream."+pluginType+".") })
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
func (p *preparation) configure(ctx context.Context) error {
	for name, plugin := range p.plugins {
		var upstreams []*pluginv1.Upstream
		for _, u := range p.cfg.Upstreams {
			if u.Type == name {
				upstreams = append(upstreams, u.Wire())
			}
		}
		p.configured = append(p.configured, plugin)
		if p.like != nil && p.like.plugins[name] == plugin && !p.concerned(name) && plugin.Carry(ctx, p.like.number, p.number) {
			continue
		}
		found, err := plugin.Configure(ctx, p.number, upstreams)
		if err != nil {
			return fmt.Errorf("configure plugin %q: %w", name, err)
		}
		for _, d := range found {
			// The validation has reported the warnings.
			if d.GetSeverity() == pluginv1.Severity_SEVERITY_ERROR {
				p.diags = append(p.diags, p.cfg.PluginDiagnostic(name+"."+d.GetUpstream(), d))
			}
		}
	}
	return verdict(p.diags)
}

// release takes the new generation out of the plugins again.
func (p *preparation) release(ctx context.Context) error {
	var errs []error
	for _, plugin := range p.configured {
		errs = append(errs, plugin.Release(ctx, p.number))
	}
	return errors.Join(errs...)
}

// stop ends the plugins that were started.
func (p *preparation) stop(ctx context.Context) error {
	var errs []error
	for _, plugin := range p.started {
		errs = append(errs, plugin.Stop(ctx))
	}
	return errors.Join(errs...)
}

// verdict is the error that diagnostics come to, or nil. An error of the
// configuration itself counts most: another try does not help against it.
func verdict(diags diag.Diagnostics) error {
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
func obstacle(cfg *config.Config, blockID, attribute, summary, detail string) diag.Diagnostic {
	d := cfg.BlockDiagnostic(blockID, attribute, summary, detail)
	d.Machine = true
	return d
}
