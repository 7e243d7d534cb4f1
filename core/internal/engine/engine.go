// Package engine ties the core's packages together: it turns a configuration
// into a generation, carries connections through it, and replaces it while
// they live on. Each of its parts knows nothing of the others.
package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tunneld/tunneld/core/diag"
	"github.com/tunneld/tunneld/core/internal/config"
	"github.com/tunneld/tunneld/core/internal/control"
	"github.com/tunneld/tunneld/core/internal/metrics"
	"github.com/tunneld/tunneld/core/internal/pluginhost"
	"github.com/tunneld/tunneld/core/internal/splice"
	"github.com/tunneld/tunneld/core/internal/targets"
	"github.com/tunneld/tunneld/core/status"
	"github.com/tunneld/tunneld/internal/listenfds"
	"github.com/tunneld/tunneld/internal/outbound"
)

// Options are what an engine needs. Version, Bundled and Self may be empty.
type Options struct {
	// ConfigPath is the configuration: a file or a folder.
	ConfigPath string
	// Stdin is the configuration's text itself, for Validate alone; ConfigPath is
	// what diagnostics call it then. Nil: ConfigPath is read.
	Stdin   io.Reader
	Version string
	// Bundled are the names of the plugins that Self serves.
	Bundled []string
	// Self is the command that serves a bundled plugin when the plugin's name
	// is appended; empty: this program with "plugin serve".
	Self []string
	// Lookup resolves the names in addresses to listen on; nil: as the system does.
	Lookup func(ctx context.Context, host string) ([]netip.Addr, error)
	// FailingPause is how long an upstream is passed over whose plugin reports it
	// failing, before a dial tries it again; 0: ten seconds.
	FailingPause time.Duration
	// Inherited are the sockets that the process was given; nil: none.
	Inherited *listenfds.Table
	// Log is the daemon's log.
	Log *slog.Logger
	// SetLog is called with the log block of each configuration that is put in
	// force, before anything is logged under it; it may be nil.
	SetLog func(config.Log)
	// LogDropped counts the lines of the log that were lost; it may be nil.
	LogDropped func() uint64
	// Notify is called when a reload begins and when it has ended, before its
	// caller gets the outcome; one call at a time. It may be nil.
	Notify func(status.Event)

	parse    func(path string) (*config.Config, diag.Diagnostics) // nil: config.Parse; the tests'
	resolver outbound.Resolver                                    // of targets, for direct; nil: the system's; the tests'
	own      targets.Lister                                       // of this machine's addresses; nil: the interfaces'; the tests'
}

// Engine is a running daemon. See Start.
type Engine struct {
	opts  Options
	log   *slog.Logger
	began time.Time

	host   *pluginhost.Host
	lookup lookup
	pump   *splice.Pump
	slots  *slots
	gates  *gates
	// availabilities are the upstreams', by name and values.
	availabilities *availabilities
	metrics        *metrics.Metrics
	repeats        *repeats
	followed       *followed
	tls            *tlsFiles
	expiry         *expiry
	logins         *logins
	own            *targets.Own
	control        *control.Server
	current        atomic.Pointer[generation]
	ids            atomic.Uint64

	refusals  atomic.Int64 // clients beyond a limit that are being told so
	exchanges exchanges    // clients that send requests

	// dialing ends at the stop; connections outlive the calls that begin them.
	dialing     context.Context
	stopDialing context.CancelCauseFunc
	connections *goroutines    // handshakes and dials under way
	retiring    sync.WaitGroup // generations, plugins and servers on their way out
	reloading   context.Context
	endReloads  context.CancelCauseFunc
	life        life // the daemon's; it begins to leave with turn held
	stopOnce    sync.Once
	stopErr     error

	lastReload             atomic.Pointer[status.Reload]
	reloads, failedReloads atomic.Uint64

	// turn is held, by one element, by whoever starts, reloads or stops.
	turn          chan struct{}
	number        uint64 // the last generation's
	sockets       socketTable
	running       []*pluginhost.Plugin
	retired       []retired      // those that dials may hold
	metricsServer *metricsServer // nil: not configured
}

// ErrInvalid says that the configuration has errors, which the diagnostics
// describe.
var ErrInvalid = errors.New("the configuration is not valid")

// errUnavailable says that the configuration has no errors as far as can be seen,
// but needs something that this machine does not provide; the diagnostics describe
// it.
var errUnavailable = errors.New("an address, a plugin or a file that the configuration needs is not available")

var errStopping = errors.New("the daemon is stopping")

// Start reads the configuration, starts its plugins, binds its listeners and
// serves. The diagnostics may hold warnings where it succeeds, which it has logged;
// where it fails they may say why, and with ErrInvalid they do. Whatever it began is
// undone on an error.
func Start(ctx context.Context, opts Options) (*Engine, diag.Diagnostics, error) {
	opts.Stdin = nil
	a, err := parse(ctx, opts)
	if err != nil {
		return nil, nil, err
	}
	e, err := newEngine(a.cfg, opts)
	if err != nil {
		return nil, a.diags, err
	}
	diags := wantListener(a.cfg, a.diags, opts.ConfigPath)
	e.turn <- struct{}{} // the control socket is served before all is done
	diags, _, err = e.replace(ctx, renewal{cfg: a.cfg, diags: diags})
	if err == nil {
		e.followed.watch(a, false)
	}
	<-e.turn
	if err != nil {
		e.followed.close()
		e.unfollow()
		e.control.Close()
		return nil, diags, errors.Join(err, e.pump.Close(), e.host.Close(context.WithoutCancel(ctx)))
	}
	diags.Log(e.log)
	return e, diags, nil
}

func newEngine(cfg *config.Config, opts Options) (*Engine, error) {
	if opts.SetLog == nil {
		opts.SetLog = func(config.Log) {}
	}
	if opts.LogDropped == nil {
		opts.LogDropped = func() uint64 { return 0 }
	}
	if opts.Notify == nil {
		opts.Notify = func(status.Event) {}
	}
	opts.SetLog(cfg.Log)
	repeats := newRepeats(opts.Log)
	availabilities := newAvailabilities(repeats, opts.FailingPause)
	host, err := newHost(cfg.Daemon.RunDir, opts, availabilities)
	if err != nil {
		return nil, err
	}
	pump, err := splice.New()
	if err != nil {
		return nil, errors.Join(err, host.Close(context.Background()))
	}
	e := &Engine{
		opts:           opts,
		log:            opts.Log,
		began:          time.Now(),
		host:           host,
		pump:           pump,
		slots:          newSlots(),
		gates:          newGates(),
		connections:    newGoroutines(),
		repeats:        repeats,
		availabilities: availabilities,
		own:            targets.NewOwn(opts.own),
		turn:           make(chan struct{}, 1),
		sockets:        socketTable{},
		lookup:         opts.Lookup,
	}
	if e.lookup == nil {
		e.lookup = systemLookup
	}
	e.gates.waits = e.exchanges.unkeep
	e.gates.waits = e.exchanges.unkeep
	e.followed = newFollowed(e)
	e.tls = newTLSFiles(&e.followed.follower, e.log)
	e.logins = newLogins(&e.followed.follower, e.log)
	e.expiry = newExpiry(e.log, e.Status)
	e.metrics = metrics.New(opts.Version, e.Status)
	e.control = control.NewServer(e, e.log)
	e.dialing, e.stopDialing = context.WithCancelCause(context.Background())
	e.reloading, e.endReloads = context.WithCancelCause(context.Background())
	return e, nil
}

// newHost returns a host of plugins, whose reports on their upstreams go to reports;
// that may be nil.
func newHost(runDir string, opts Options, reports *availabilities) (*pluginhost.Host, error) {
	o := pluginhost.Options{
		Log:         opts.Log,
		RunDir:      runDir,
		CoreVersion: opts.Version,
		Self:        opts.Self,
	}
	if reports != nil {
		o.OnReport, o.OnLost = reports.reported, reports.lost
	}
	host, err := pluginhost.New(o)
	if err != nil {
		return nil, fmt.Errorf("start plugin host: %w", err)
	}
	return host, nil
}

// Validate checks a configuration as Start would, with the plugins that it
// names, and leaves nothing behind. It binds and dials nothing. The error is of
// the machine, and the diagnostics may say more of it; what is wrong with the
// configuration is in the diagnostics alone.
func Validate(ctx context.Context, opts Options) (diag.Diagnostics, error) {
	a, err := parse(ctx, opts)
	if err != nil {
		return nil, err
	}
	diags := wantListener(a.cfg, a.diags, opts.ConfigPath)
	// A directory of its own, not that of a daemon that is running.
	host, err := newHost("", opts, nil)
	if err != nil {
		return diags, err
	}
	p := &preparation{host: host, opts: opts, cfg: a.cfg, diags: diags}
	err = p.check(ctx)
	if errors.Is(err, ErrInvalid) {
		err = nil
	}
	return p.diags, errors.Join(err, host.Close(context.WithoutCancel(ctx)))
}

// wantListener adds an error to diags where an otherwise good configuration has no
// listener: nearly always a file that was cut short, or the wrong one.
func wantListener(cfg *config.Config, diags diag.Diagnostics, path string) diag.Diagnostics {
	if len(cfg.Listeners) > 0 || diags.HasErrors() {
		return diags
	}
	return append(diags, diag.Diagnostic{
		Summary: "No listener",
		Detail:  `Nothing would be accepted. Add a block, listener "tcp" "NAME" { … }, or check that the file is complete. To close all listeners of a running daemon: tunneld reload --allow-empty`,
		File:    path,
	})
}

// hold returns the generation in force, held; nil: the engine has stopped.
func (e *Engine) hold() *generation {
	for {
		g := e.current.Load()
		if g == nil || g.hold() {
			return g
		}
	}
}

// Leave is what may come before Stop: the daemon says that it is not ready, and no
// longer reloads, and goes on accepting for the configured shutdown_delay or until
// ctx is done.
func (e *Engine) Leave(ctx context.Context) {
	e.announceStop()
	g := e.current.Load()
	if g == nil || g.cfg.Daemon.ShutdownDelay == 0 {
		return
	}
	delay := g.cfg.Daemon.ShutdownDelay
	e.log.Info("not ready, and still accepting until the stop", "shutdown_delay", delay)
	over := time.NewTimer(delay)
	defer over.Stop()
	select {
	case <-over.C:
	case <-ctx.Done():
	}
}

// announceStop breaks off a reload that is under way, lets no other begin, and
// makes the daemon not ready.
func (e *Engine) announceStop() {
	e.endReloads(errStopping)
	e.turn <- struct{}{}
	e.life.turn(status.Leaving)
	<-e.turn
}

// Stop stops accepting, waits until the tunnels have ended, bounded by the
// configured shutdown_timeout and by ctx, breaks off those that are left, and
// stops the plugins. It returns what went wrong on the way. A second call waits
// for the first.
func (e *Engine) Stop(ctx context.Context) error {
	e.stopOnce.Do(func() { e.stopErr = e.stop(ctx) })
	return e.stopErr
}

func (e *Engine) stop(ctx context.Context) error {
	e.announceStop()
	e.life.turn(status.Draining)
	e.exchanges.drain()
	e.followed.close()
	e.log.Info("stopping", "tunnels", e.pump.Active())
	drain, cancel := context.WithTimeout(ctx, e.current.Load().cfg.Daemon.ShutdownTimeout)
	defer cancel()
	var errs []error
	for block, sockets := range e.sockets { // nobody changes it any more
		if kind(block) == listenerBlocks {
			for _, s := range sockets {
				errs = append(errs, s.close())
			}
		}
	}
	if err := e.settle(drain); err != nil && e.pump.Active() > 0 {
		why := "the time for draining is over"
		if ctx.Err() != nil {
			why = "told to end at once"
		}
		e.log.Warn("tunnels are broken off", "tunnels", e.pump.Active(), "err", why)
	}
	e.stopDialing(errStopping)
	e.connections.Wait()
	e.connections.Close()
	errs = append(errs, e.pump.Close())
	e.unfollow()
	e.repeats.close()
	e.current.Store(nil)
	errs = append(errs, e.closeHost(ctx))
	e.retiring.Wait()
	e.life.turn(status.Closed)
	return errors.Join(append(errs, e.closeServers())...)
}

// unfollow ends the following of files. It comes once nobody dials any more: what a file
// system holds up may make it wait for a second or two.
func (e *Engine) unfollow() {
	e.expiry.stop()
	e.followed.forget()
	e.tls.retain(nil)
	e.logins.retain(nil)
}

// lastGrace is what plugins get to end by themselves once nobody wants to wait
// for them any more.
const lastGrace = time.Second

// closeHost stops the plugins. They have the host's own time for it, and
// lastGrace from when ctx is done.
func (e *Engine) closeHost(ctx context.Context) error {
	closing, kill := context.WithCancel(context.WithoutCancel(ctx))
	defer kill()
	defer context.AfterFunc(ctx, func() {
		t := time.NewTimer(lastGrace)
		defer t.Stop()
		select {
		case <-t.C:
			kill()
		case <-closing.Done():
		}
	})()
	return e.host.Close(closing)
}

// settle waits until no dial is under way and no tunnel is left.
func (e *Engine) settle(ctx context.Context) error {
	dialed := make(chan struct{})
	go func() {
		e.connections.Wait()
		close(dialed)
	}()
	select {
	case <-dialed:
	case <-ctx.Done():
		// Stop cancels the dials and waits for them, which ends the goroutine.
		return ctx.Err()
	}
	return e.pump.Wait(ctx)
}
