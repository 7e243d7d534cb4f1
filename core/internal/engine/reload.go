package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tunneld/tunneld/core/diag"
	"github.com/tunneld/tunneld/core/internal/config"
	"github.com/tunneld/tunneld/core/status"
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
		a, err := parse(ctx, e.opts)
		if err != nil {
			r.Error = err.Error()
			return
		}
		e.reload(ctx, r, a, o)
	})
}

// reload puts what was parsed in force. It is called with turn held.
func (e *Engine) reload(ctx context.Context, r *status.Reload, a attempt, o status.ReloadOptions) {
	e.notify(nil)
	diags := a.diags
	if len(e.current.Load().served) > 0 && !o.AllowEmpty {
		diags = wantListener(a.cfg, diags, e.opts.ConfigPath)
	}
	diags, err := e.renew(ctx, r, renewal{cfg: a.cfg, diags: diags})
	e.followed.watch(a, err != nil)
	e.lastReload.Store(r)
	e.reloads.Add(1)
	if err != nil {
		e.failedReloads.Add(1)
		e.log.Error("reload failed, the old configuration stays in force", "generation", r.Generation, "err", err, "problems", len(diags))
	} else {
		e.followed.read()
		e.log.Info("reloaded", "generation", r.Generation, "changes", len(r.Changes), "duration", r.Duration.Round(time.Millisecond))
	}
	e.notify(r)
}

// RestartPlugin starts a plugin's program beside its process, and has the new one take
// its place as in a reload: all or nothing, and tunnels live on. The configuration is
// the one in force, whatever has become of its files. A plugin that no upstream has is
// an error in the outcome.
func (e *Engine) RestartPlugin(ctx context.Context, name string) status.Reload {
	return e.inTurn(ctx, func(ctx context.Context, r *status.Reload) {
		cfg := e.current.Load().cfg
		if used := cfg.PluginTypes(); !slices.Contains(used, name) {
			r.Error = fmt.Sprintf("no upstream has the plugin %q; in use: %s", name, cmp.Or(strings.Join(used, ", "), "none"))
			return
		}
		if _, err := e.renew(ctx, r, renewal{cfg: cfg.Undecoded(), fresh: name, only: []string{}}); err != nil {
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
	if e.life.is() != status.Serving {
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
	diags diag.Diagnostics
	// fresh is the plugin that is started anew in any case, or empty.
	fresh string
	// only are the upstreams and listeners that may differ from the configuration in
	// force, by block ID; nil: all of it may. Otherwise the rest goes on as it is, whatever
	// has become of what it was made of: plugins, unless they are down and such an
	// upstream is theirs, addresses, the control socket. No other upstream is checked again.
	only []string
}

// renew puts a configuration in force and completes the outcome. It returns all
// diagnostics. It is called with turn held.
func (e *Engine) renew(ctx context.Context, r *status.Reload, n renewal) (diag.Diagnostics, error) {
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
