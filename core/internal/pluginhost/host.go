// Package pluginhost runs plugins: it finds, starts, watches, restarts and stops
// their processes, configures them, and turns their dials into connections. It does
// not decide which plugins there are and what their configuration is, and it moves no
// bytes.
//
// It uses go-plugin only for the handshake and the gRPC connection. It handles
// processes itself, since go-plugin's way can take a daemon down: the code names each
// trap where it avoids it, and each has a test.
package pluginhost

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// Options are what a host needs to know. Only Log is required.
type Options struct {
	Log *slog.Logger
	// RunDir is where the host makes a directory of its own, 0700, for the
	// plugins' sockets; empty: $RUNTIME_DIRECTORY, else the folder for
	// temporary files. What dead processes left there is removed.
	RunDir string
	// CoreVersion is sent to the plugins, for their log.
	CoreVersion string
	// Self is the command that serves a bundled plugin once its name is
	// appended; empty: this program with "plugin serve". On Linux that is
	// /proc/self/exe, so that an upgrade of the file on disk does not start a
	// plugin of another version.
	Self []string
	// StartTimeout bounds a start until the plugin has said who it is;
	// CallTimeout each call but Dial and Drain; StopTimeout the time between
	// SIGTERM and SIGKILL. Zero: 10s, 10s, 5s.
	StartTimeout, CallTimeout, StopTimeout time.Duration
	// PingInterval is how often a plugin has to prove, within CallTimeout, that
	// it still answers; one that does not is replaced. Zero: 5s.
	PingInterval time.Duration
	// MaxDials bounds the dials of one plugin that are under way; more wait.
	// One upstream has at most half of them, so that a far end that hangs
	// leaves the others some. Zero: 1000, which is less than the SDK takes.
	MaxDials int
	Backoff  Backoff
	// OnState is called with the state of a plugin whenever it changes: one call at
	// a time, from the host's goroutines. It must not block and must not call the
	// plugin's Stop or the host's Close. May be nil.
	OnState func(State)
	// OnReport is called with what a plugin reports of its upstreams, and OnLost when
	// its process has died: earlier reports are then void. The calls for one plugin come
	// one at a time, and must not block. Nil is allowed.
	OnReport func(*Plugin, []*pluginv1.UpstreamStatus)
	OnLost   func(*Plugin)
}

// Backoff is how long a dead plugin waits for its restart. The first is at
// once; then the wait grows from Min, doubling, to Max, shortened at random by
// up to a quarter. A plugin that lived for Reset starts over. The same waits are
// between the tries to give a restarted plugin what it refuses. Zero: 500ms, 30s,
// 1m.
type Backoff struct{ Min, Max, Reset time.Duration }

// delay is the wait before the nth attempt after a process that held.
func (b Backoff) delay(n int) time.Duration {
	if n <= 1 {
		return 0
	}
	d := b.Min
	for ; n > 2 && d < b.Max; n-- {
		d *= 2
	}
	d = min(d, b.Max)
	return d - rand.N(d/4+1)
}

// Host runs plugins. See New. It is safe for concurrent use.
type Host struct {
	opts     Options
	selfName string
	waits    waits
	starts   atomic.Uint64

	runMu sync.Mutex // guards run
	run   *runDir

	mu      sync.Mutex
	plugins map[*Plugin]struct{}
	closed  bool
}

// New makes a host and its run directory. The caller closes it.
func New(o Options) (*Host, error) {
	if o.Log == nil {
		return nil, errors.New("plugin host: no logger")
	}
	o.StartTimeout = cmp.Or(o.StartTimeout, 10*time.Second)
	o.CallTimeout = cmp.Or(o.CallTimeout, 10*time.Second)
	o.StopTimeout = cmp.Or(o.StopTimeout, 5*time.Second)
	o.PingInterval = cmp.Or(o.PingInterval, 5*time.Second)
	o.MaxDials = cmp.Or(o.MaxDials, 1000)
	o.Backoff.Min = cmp.Or(o.Backoff.Min, 500*time.Millisecond)
	o.Backoff.Max = cmp.Or(o.Backoff.Max, 30*time.Second)
	o.Backoff.Reset = cmp.Or(o.Backoff.Reset, time.Minute)
	h := &Host{
		opts:    o,
		plugins: make(map[*Plugin]struct{}),
		waits:   waits{handoff: 5 * time.Second, confirm: 5 * time.Second, send: 2 * time.Second},
	}
	if err := h.findSelf(); err != nil {
		return nil, fmt.Errorf("plugin host: %w", err)
	}
	var err error
	if h.run, err = makeRunDir(o.RunDir); err != nil {
		return nil, err
	}
	return h, nil
}

// findSelf settles what serves bundled plugins, and what it is called.
func (h *Host) findSelf() error {
	if len(h.opts.Self) > 0 {
		h.selfName = h.opts.Self[0]
		if !filepath.IsAbs(h.selfName) {
			return fmt.Errorf("the program %q that serves bundled plugins is not an absolute path", h.selfName)
		}
		return nil
	}
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	h.selfName = exe
	if runtime.GOOS == "linux" {
		exe = "/proc/self/exe"
	}
	h.opts.Self = []string{exe, "plugin", "serve"}
	return nil
}

// Start starts a plugin and keeps it running until it is stopped. A first start
// that fails is an error, a *StartError unless ctx was done, and is not tried
// again.
func (h *Host) Start(ctx context.Context, s Spec) (*Plugin, error) {
	if err := s.wellFormed(); err != nil {
		return nil, err
	}
	if !s.Bundled && len(s.Command) == 0 {
		return nil, fmt.Errorf("start plugin %q: no command", s.Name)
	}
	p := newPlugin(h, s)
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		return nil, fmt.Errorf("start plugin %q: the host is closed", s.Name)
	}
	// It is known before it runs, so that a Close meanwhile stops it.
	h.plugins[p] = struct{}{}
	h.mu.Unlock()
	if err := p.begin(ctx); err != nil {
		h.forget(p)
		return nil, err
	}
	return p, nil
}

func (h *Host) forget(p *Plugin) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.plugins, p)
}

// Plugins returns every plugin that is not stopped, in no order.
func (h *Host) Plugins() []*Plugin {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := make([]*Plugin, 0, len(h.plugins))
	for p := range h.plugins {
		all = append(all, p)
	}
	return all
}

// Close stops all plugins and removes the run directory. Once ctx is done it
// kills what has not ended.
func (h *Host) Close(ctx context.Context) error {
	h.mu.Lock()
	again := h.closed
	h.closed = true
	h.mu.Unlock()
	if again {
		return nil
	}
	all := h.Plugins()
	errs := make([]error, len(all)+1)
	var stops sync.WaitGroup
	for i, p := range all {
		stops.Go(func() { errs[i] = p.Stop(ctx) })
	}
	stops.Wait()
	h.runMu.Lock()
	defer h.runMu.Unlock()
	errs[len(all)] = h.run.close()
	return errors.Join(errs...)
}

// runPath returns the run directory's path. One that is lost, as to a cleaner of
// temporary files, is made again: without it no plugin could be started any more.
func (h *Host) runPath() (string, error) {
	h.runMu.Lock()
	defer h.runMu.Unlock()
	if h.run.intact() {
		return h.run.path, nil
	}
	d, err := makeRunDir(h.run.base)
	if err != nil {
		return "", err
	}
	h.opts.Log.Warn("the run directory was lost and is made again: exclude it from cleanups", "lost", h.run.path, "path", d.path)
	err = h.run.close()
	h.run = d
	return d.path, err
}
