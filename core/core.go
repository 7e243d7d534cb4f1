// Package core is the daemon as its commands use it: check a configuration, run
// it, reload it, and query plugins. Package diag has what it says about a configuration,
// package status what a daemon says about itself; how it works is internal.
package core

import (
	"context"
	"fmt"
	"io"
	"log/slog"

	"github.com/tunneld/tunneld/core/diag"
	"github.com/tunneld/tunneld/core/internal/config"
	"github.com/tunneld/tunneld/core/internal/engine"
	"github.com/tunneld/tunneld/core/status"
	"github.com/tunneld/tunneld/internal/listenfds"
)

// Options are what the daemon needs. ConfigPath is required, and Log of Start.
type Options struct {
	// ConfigPath is a file, or a folder of *.hcl files.
	ConfigPath string
	// Stdin is the configuration's text itself, for Validate alone; ConfigPath is
	// what diagnostics call it then. Nil: ConfigPath is read.
	Stdin io.Reader
	// Version is the program's, for logs and plugins.
	Version string
	// Bundled are the names of the plugins that the command Self serves.
	Bundled []string
	// Self is a command with its arguments, to which a bundled plugin's name is
	// appended; empty: this program with "plugin serve".
	Self []string
	// Inherit takes the listening sockets that the process was given over
	// (sd_listen_fds(3)), and their variables out of the environment. Start then comes
	// before anything else opens descriptors or starts processes.
	Inherit bool
	// Log is where the daemon's log goes. Writes are of whole lines, one at a time.
	// The daemon does not wait for them, but a stop for those that are left, for
	// some seconds at most; what a slow writer does not take is dropped and counted.
	Log io.Writer
	// Warnings are logged once the daemon serves, each a line.
	Warnings []string
	// Notify is called when a reload begins and when it has ended, whatever caused
	// it; it may be nil. The calls come one at a time, in order, and the daemon
	// waits for them: they must be quick, and must not call its methods.
	Notify func(status.Event)
}

// ErrInvalid says that the configuration has errors, which the diagnostics
// describe.
var ErrInvalid = engine.ErrInvalid

// Daemon is a running daemon. Its methods may be called by several goroutines.
type Daemon struct {
	engine *engine.Engine
	log    *logging
}

// Start reads the configuration, starts its plugins, binds its listeners and
// serves. ctx bounds the start alone. On an error nothing is left behind, and the
// diagnostics may say why; with ErrInvalid they do, and what is wrong is the
// configuration. They may hold warnings in any case, which are in the log of a daemon
// that runs.
func Start(ctx context.Context, opts Options) (*Daemon, diag.Diagnostics, error) {
	o := engineOptions(opts)
	if opts.Inherit {
		var err error
		if o.Inherited, err = listenfds.Take(); err != nil {
			return nil, nil, fmt.Errorf("start: inherited sockets: %w", err)
		}
	}
	log := newLogging(opts.Log)
	o.Log, o.SetLog, o.Notify = slog.New(log), log.set, opts.Notify
	o.LogDropped = log.sink.queue.Dropped
	e, diags, err := engine.Start(ctx, o)
	if err != nil {
		log.sink.queue.Flush()
		return nil, diags, fmt.Errorf("start: %w", err)
	}
	for _, w := range opts.Warnings {
		o.Log.Warn(w)
	}
	return &Daemon{engine: e, log: log}, diags, nil
}

// Reload reads the configuration again and puts it in force, all or nothing.
// The outcome is in the log as well, with its diagnostics. ctx bounds it.
func (d *Daemon) Reload(ctx context.Context) status.Reload { return d.engine.Reload(ctx) }

// Status says how the daemon is. It waits for nothing.
func (d *Daemon) Status() status.Status { return d.engine.Status() }

// Leave makes the daemon not ready; it goes on accepting for the configured
// shutdown_delay, or until ctx is done. It may be called before Stop. It cancels a
// reload under way, and no other can begin.
func (d *Daemon) Leave(ctx context.Context) { d.engine.Leave(ctx) }

// Stop stops accepting and waits for the tunnels to end, but no longer than the
// configured shutdown_timeout and not past ctx; then it breaks off what is left
// and stops the plugins.
func (d *Daemon) Stop(ctx context.Context) error {
	defer d.log.sink.queue.Flush()
	return d.engine.Stop(ctx)
}

// Validate checks a configuration, with the plugins that it names. It binds and
// dials nothing. The error is a failure of the machine, not of the configuration;
// the diagnostics may say more about it.
func Validate(ctx context.Context, opts Options) (diag.Diagnostics, error) {
	return engine.Validate(ctx, engineOptions(opts))
}

// engineOptions leaves the log to the caller: what only looks does not log.
func engineOptions(opts Options) engine.Options {
	return engine.Options{
		ConfigPath: opts.ConfigPath,
		Stdin:      opts.Stdin,
		Version:    opts.Version,
		Bundled:    opts.Bundled,
		Self:       opts.Self,
		Log:        slog.New(slog.DiscardHandler),
	}
}

// MaxConfigSize bounds a configuration, all its files together, in bytes.
const MaxConfigSize = config.MaxSize

// Format returns a configuration file's text in its canonical layout. filename
// is for errors alone: diag.Diagnostics that wrap ErrInvalid.
func Format(src []byte, filename string) ([]byte, error) {
	done, err := config.Format(src, filename)
	if err != nil {
		return nil, invalid{err}
	}
	return done, nil
}

// invalid is an error that says itself what is wrong with a configuration.
type invalid struct{ error }

func (invalid) Is(target error) bool { return target == ErrInvalid }
func (i invalid) Unwrap() error      { return i.error }
