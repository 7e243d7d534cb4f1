// Package conformance tests a plugin against the protocol: it starts it like the
// daemon, carries bytes through it, breaks tunnels in every way, and reports the
// results. It judges only the plugin: Options.Lacks names known gaps of the far end.
package conformance

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tunneld/tunneld/core/conformance/internal/farend"
	"github.com/tunneld/tunneld/core/conformance/internal/poll"
	"github.com/tunneld/tunneld/core/conformance/internal/proc"
	"github.com/tunneld/tunneld/core/diag"
	"github.com/tunneld/tunneld/core/internal/config"
	"github.com/tunneld/tunneld/core/internal/pluginhost"
	"github.com/tunneld/tunneld/core/internal/tunnel"
	"github.com/tunneld/tunneld/internal/nodump"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// Options are what a run needs. ConfigPath, Upstream and Target are required.
type Options struct {
	// ConfigPath is a file, or a folder of *.hcl files. Only the plugin of
	// Upstream is started.
	ConfigPath string
	// Upstream is the upstream to test, "type.name".
	Upstream string
	// Version, Bundled and Self are those of core.Options.
	Version string
	Bundled []string
	Self    []string

	// Target is what the plugin is asked for, "host:port". Where it is a loopback address the
	// run serves it, else it assumes that an echo service is there.
	Target string
	// Serve is the address, "host:port", to serve at in place of the target's:
	// for a far end that leads the target there. It has to be free.
	Serve string
	// Refused is a target where nothing listens, "host:port". Without one a port of the
	// served address is used; NoRefused says that the upstream leads to one
	// target whatever it is asked for.
	Refused   string
	NoRefused bool
	// FarEnd is a command to run meanwhile, with its arguments; may be empty.
	FarEnd []string
	// Lacks is what the far end is known not to do: see LackHalfClose, LackReset.
	Lacks []string

	// Timeout bounds each step: a dial, an answer, a wait for bytes. Zero: 10s.
	Timeout time.Duration
	// Bulk is how many bytes go each way; 0: 64 MiB.
	Bulk int64
	// Dials is how many dials are made at once; 0: 64.
	Dials int
	// Progress is called after each check; may be nil.
	Progress func(Check)

	// stop bounds the end of a process after SIGTERM, hangUp after the descriptor
	// channel's end of file; zero: two seconds and a grace.
	stop, hangUp time.Duration
	// lateness bounds the word on an end of file; zero: lateness.
	lateness time.Duration
}

// What a far end may lack.
const (
	// LackHalfClose: it ends both directions when one ends.
	LackHalfClose = "half-close"
	// LackReset: it turns a connection that was broken off into a clean end.
	LackReset = "reset"
)

// ErrInvalid says that the configuration has errors, a *ConfigError then, or that
// the options do not fit it.
var ErrInvalid = errors.New("the configuration is not valid")

// ConfigError is a configuration that has errors.
type ConfigError struct{ diags diag.Diagnostics }

// invalid leaves warnings out: they are of a daemon that would run the
// configuration, and the kit needs neither listeners nor routes.
func invalid(diags diag.Diagnostics) error {
	return &ConfigError{slices.DeleteFunc(slices.Clone(diags), func(d diag.Diagnostic) bool { return d.Warning })}
}

// Error returns the first of the errors.
func (e *ConfigError) Error() string { return ErrInvalid.Error() + ": " + e.diags.Error() }

// Unwrap returns ErrInvalid.
func (e *ConfigError) Unwrap() error { return ErrInvalid }

// Write prints the errors for people, each with its line.
func (e *ConfigError) Write(w io.Writer) error { return e.diags.Write(w) }

// Run tests one upstream. What does not hold is in the report; the error says
// that no report could be made: ErrInvalid, or a failure of the machine.
func Run(ctx context.Context, o Options) (*Report, error) {
	o.Timeout = cmp.Or(o.Timeout, 10*time.Second)
	o.Bulk = cmp.Or(o.Bulk, 64<<20)
	o.Dials = cmp.Or(o.Dials, 64)
	o.stop = cmp.Or(o.stop, stopTime+stopGrace)
	o.hangUp = cmp.Or(o.hangUp, stopTime+stopGrace)
	o.lateness = cmp.Or(o.lateness, lateness)
	r := &run{opts: o}
	if err := r.read(); err != nil {
		return nil, err
	}
	if err := r.serve(ctx); err != nil {
		return nil, err
	}
	report := r.check(ctx)
	err := r.close()
	if r.invalid != nil {
		return nil, invalid(r.invalid)
	}
	if cause := context.Cause(ctx); cause != nil {
		return nil, cause
	}
	return report, err
}

// read makes the options what the checks work with.
func (r *run) read() error {
	var err error
	if r.dest, err = parseTarget(r.opts.Target); err != nil {
		return err
	}
	if r.opts.Refused != "" {
		refusing, err := parseTarget(r.opts.Refused)
		if err != nil {
			return err
		}
		r.refusing = &refusing
	}
	for _, lack := range r.opts.Lacks {
		if lack != LackHalfClose && lack != LackReset {
			return fmt.Errorf("a far end cannot lack %q: %s and %s are known: %w", lack, LackHalfClose, LackReset, ErrInvalid)
		}
	}
	cfg, diags := config.Parse(r.opts.ConfigPath)
	if diags.HasErrors() {
		return invalid(diags)
	}
	r.cfg = cfg
	return r.find()
}

// parseTarget reads "host:port".
func parseTarget(s string) (tunnel.Target, error) {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return tunnel.Target{}, fmt.Errorf("target %q is not host:port: %w", s, ErrInvalid)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 || host == "" {
		return tunnel.Target{}, fmt.Errorf("target %q is not host:port: %w", s, ErrInvalid)
	}
	return tunnel.Target{Host: host, Port: uint16(n)}, nil
}

// level is how far the plugin has come: what a check can build on.
type level int

const (
	levelNone    level = iota
	levelStarted       // it runs
	levelDecoded       // the configuration fits its schema
	levelValid         // it takes the configuration
	levelDialed        // it makes tunnels
)

// missing says what is not there at a level below l.
func (l level) missing() string {
	switch l {
	case levelStarted:
		return "the plugin does not start"
	case levelDecoded:
		return "the schema cannot be used"
	case levelValid:
		return "the plugin does not take the configuration"
	case levelDialed:
		return "no tunnel can be made"
	}
	return ""
}

// run is one run. Its checks come one after another; what they start together
// they wait for.
type run struct {
	opts     Options
	cfg      *config.Config
	spec     pluginhost.Spec
	upstream config.Upstream
	up       *pluginv1.Upstream
	dest     tunnel.Target
	target   *farend.Service // nil: dest is somebody else's
	assumed  string          // why it is
	refusing *tunnel.Target  // where nothing listens; may be nil
	refused  *farend.Port    // may be nil
	farEnd   *farend.Command // may be nil

	level   level
	invalid diag.Diagnostics
	main    *instance
	relay   bool // the path of the tunnels
	remote  string
	took    time.Duration // by the first dial
	said    words
	// unseen is why the plugin's descriptors cannot be looked at.
	unseen error
	// unsought are the sensitive values that are not looked for in said.
	unsought []string
	records  []string       // what was wrong with instances that are gone
	stops    []string       // instances that did not end on SIGTERM
	left     []proc.Process // processes that outlived an instance
}

// find resolves the upstream and its plugin.
func (r *run) find() error {
	pluginType, name, ok := strings.Cut(r.opts.Upstream, ".")
	if !ok {
		return fmt.Errorf("upstream %q is not TYPE.NAME: %w", r.opts.Upstream, ErrInvalid)
	}
	if pluginType == config.DirectType {
		return fmt.Errorf("upstream %q has no plugin: %w", r.opts.Upstream, ErrInvalid)
	}
	for _, u := range r.cfg.Upstreams {
		if u.Type == pluginType && u.Name == name {
			r.upstream = u
		}
	}
	if r.upstream.Type == "" {
		return fmt.Errorf("%s has no upstream %q %q: %w", r.opts.ConfigPath, pluginType, name, ErrInvalid)
	}
	var block *pluginhost.Block
	for _, b := range r.cfg.Plugins {
		if b.Name == pluginType {
			block = &pluginhost.Block{Command: b.Command, SHA256: b.SHA256, Files: b.Files, Env: b.Env}
		}
	}
	spec, err := pluginhost.Find(pluginType, block, r.cfg.Daemon.PluginDir, r.opts.Bundled)
	if err != nil {
		return errors.Join(err, ErrInvalid)
	}
	spec.Env = maps.Clone(spec.Env)
	if spec.Env == nil {
		spec.Env = map[string]string{}
	}
	// Without this only root could inspect its descriptors.
	spec.Env[nodump.Env] = "1"
	r.spec = spec
	return nil
}

// serve starts what is not the plugin.
func (r *run) serve(ctx context.Context) error {
	address, required := r.opts.Target, false
	if r.opts.Serve != "" {
		address, required = r.opts.Serve, true
	}
	var err error
	r.target, err = farend.Serve(address)
	switch {
	case err != nil && required:
		return fmt.Errorf("serve at %s: %w", address, err)
	case err != nil:
		r.assumed = err.Error()
	case r.refusing == nil && !r.opts.NoRefused:
		if r.refused, err = farend.Refusing(r.target.IP()); err != nil {
			return errors.Join(err, r.target.Close())
		}
		r.refusing = &r.refused.Target
	}
	if len(r.opts.FarEnd) > 0 {
		if r.farEnd, err = farend.Start(r.opts.FarEnd); err != nil {
			return errors.Join(err, r.close())
		}
	}
	return nil
}

// close ends everything, the plugin first.
func (r *run) close() error {
	var errs []error
	if r.main != nil {
		r.retire(r.main)
	}
	if r.farEnd != nil {
		r.farEnd.Close()
	}
	if r.refused != nil {
		errs = append(errs, r.refused.Close())
	}
	if r.target != nil {
		errs = append(errs, r.target.Close())
	}
	return errors.Join(errs...)
}

// logged is what the plugin logged as errors meanwhile and the detail does not
// have yet, each in a line.
func (r *run) logged(ctx context.Context, detail string) string {
	// A log may come a little after what it is about.
	var errs []string
	poll.Until(ctx, 100*time.Millisecond, func() bool {
		errs = append(errs, r.said.takeErrors()...)
		return len(errs) > 0
	})
	lines := ""
	for n, text := range errs {
		if !strings.Contains(detail, text) && !slices.Contains(errs[:n], text) {
			lines += "\nthe plugin logged: " + text
		}
	}
	return lines
}

// check makes all checks in their order.
func (r *run) check(ctx context.Context) *Report {
	report := newReport(r)
	begun := time.Now()
	for _, c := range checks {
		if ctx.Err() != nil || r.invalid != nil {
			break
		}
		start := time.Now()
		r.said.takeErrors()
		got := c.of(ctx, r)
		took := time.Since(start)
		if got.result == Fail {
			got.detail += r.logged(ctx, got.detail)
		}
		done := Check{
			ID: c.id, Group: c.group, Title: c.title,
			Result: got.result, Detail: r.said.Cover(got.detail),
			Fix:     got.fix,
			Seconds: took.Seconds(),
		}
		report.add(done)
		if r.opts.Progress != nil {
			r.opts.Progress(done)
		}
	}
	report.finish(r, time.Since(begun))
	return report
}
