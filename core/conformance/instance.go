package conformance

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tunneld/tunneld/core/conformance/internal/poll"
	"github.com/tunneld/tunneld/core/conformance/internal/proc"
	"github.com/tunneld/tunneld/core/conformance/internal/secrets"
	"github.com/tunneld/tunneld/core/internal/pluginhost"
	"github.com/tunneld/tunneld/internal/pluginwire"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// firstGeneration is the one that every instance is configured with.
const firstGeneration = 1

// stopTime is what a plugin has to end, and the grace for a busy machine.
const (
	stopTime  = 2 * time.Second
	stopGrace = 2 * time.Second
)

// instance is a process of the plugin, with a host of its own.
type instance struct {
	host   *pluginhost.Host
	plugin *pluginhost.Plugin
	probe  *pluginhost.Probe
	info   *pluginv1.GetInfoResponse
	ledger *ledger
}

// launch starts the plugin. It is given its configuration by configure.
func (r *run) launch(ctx context.Context) (*instance, error) {
	i := &instance{ledger: &ledger{ended: map[uint64]bool{}, handed: map[uint64]bool{}, eofs: map[uint64]bool{}}}
	host, err := pluginhost.New(pluginhost.Options{
		// What the host says of the plugin is in the errors.
		Log:         slog.New(slog.DiscardHandler),
		CoreVersion: r.opts.Version,
		Self:        r.opts.Self,
		StopTimeout: r.opts.stop,
		OnLine:      func(_ string, line []byte) { r.said.line(line) },
		OnText:      r.said.answer,
		OnRecord: func(_ string, rec pluginwire.Record, err error) {
			if rec.Text != "" {
				r.said.Add(rec.Text)
			}
			i.ledger.take(rec, err)
		},
	})
	if err != nil {
		return nil, err
	}
	i.host = host
	i.plugin, err = host.Start(ctx, r.spec)
	if err == nil {
		i.info = i.plugin.Info()
		i.probe, err = i.plugin.Probe(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, host.Close(context.WithoutCancel(ctx)))
	}
	return i, nil
}

// another starts a further instance with the configuration, for checks that
// end it.
func (r *run) another(ctx context.Context) (*instance, error) {
	i, err := r.launch(ctx)
	if err != nil || r.level < levelValid {
		return i, err
	}
	if err := r.configure(ctx, i, firstGeneration); err != nil {
		r.retire(i)
		return nil, err
	}
	return i, nil
}

// configure adds a generation of the one upstream.
func (r *run) configure(ctx context.Context, i *instance, generation uint64) error {
	return configureWith(ctx, i, generation, r.up)
}

func configureWith(ctx context.Context, i *instance, generation uint64, up *pluginv1.Upstream) error {
	ds, err := i.plugin.Configure(ctx, generation, []*pluginv1.Upstream{up})
	if err != nil {
		return err
	}
	if wrong := errorsIn(ds); len(wrong) > 0 {
		return fmt.Errorf("configure generation %d: %s", generation, wrong[0])
	}
	return nil
}

// retire stops an instance and keeps what is to be said of it in the end.
func (r *run) retire(i *instance) {
	if i.host == nil {
		return
	}
	family := proc.Family(i.probe.PID())
	begun := time.Now()
	err := i.host.Close(context.Background())
	if took := time.Since(begun); took >= r.opts.stop {
		r.stops = append(r.stops, fmt.Sprintf("it was still there %s after SIGTERM, and was killed", r.opts.stop))
	}
	if err != nil {
		r.stops = append(r.stops, err.Error())
	}
	r.leave(family)
	r.records = append(r.records, i.ledger.findings()...)
	i.host = nil
}

// leave keeps those of a family that are still alive, and ends them.
func (r *run) leave(family []proc.Process) {
	var left []proc.Process
	poll.Until(context.Background(), 2*time.Second, func() bool {
		left = slices.DeleteFunc(slices.Clone(family), func(p proc.Process) bool { return !p.Alive() })
		return len(left) == 0
	})
	for _, p := range left {
		p.Kill()
	}
	r.left = append(r.left, left...)
}

// ledger is what came on a descriptor channel.
type ledger struct {
	mu                  sync.Mutex
	wrong               []string
	ended, handed, eofs map[uint64]bool
}

func (l *ledger) take(rec pluginwire.Record, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.wrong) >= 20 {
		return
	}
	wrong := func(format string, args ...any) { l.wrong = append(l.wrong, fmt.Sprintf(format, args...)) }
	if err != nil {
		wrong("%v", errors.Unwrap(err))
		return
	}
	once := func(seen map[uint64]bool, what string) {
		if seen[rec.Token] {
			wrong("%s of tunnel %d came twice", what, rec.Token)
		}
		seen[rec.Token] = true
	}
	switch rec.Kind {
	case pluginwire.Handoff:
		once(l.handed, "the handoff")
	case pluginwire.EOF:
		once(l.eofs, "EOF")
	case pluginwire.End:
		once(l.ended, "END")
	case pluginwire.Abort:
		wrong("ABORT of tunnel %d, which is the daemon's to send", rec.Token)
	}
	if rec.Kind != pluginwire.Handoff && !l.handed[rec.Token] {
		wrong("a record of kind %d for tunnel %d, which was not handed over", rec.Kind, rec.Token)
	}
}

// late notes a word on an end of file that came after it.
func (l *ledger) late(by time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wrong = append(l.wrong, fmt.Sprintf("the word on a relay's end of file came %s after it", by.Round(100*time.Millisecond)))
}

func (l *ledger) findings() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.wrong)
}

// words are what a plugin says.
type words struct {
	secrets.Watch
	mu sync.Mutex
	// info are the version and the summary as they came, by field.
	info   map[string]string
	errors []string // logged since the last call of takeErrors
}

// maxErrors bounds the errors that are told with one check.
const maxErrors = 3

// line takes a line that the plugin printed.
func (w *words) line(b []byte) {
	w.Add(string(b))
	text := pluginhost.ErrorText(b)
	if text == "" {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.errors = append(w.errors, text)
	w.errors = w.errors[max(0, len(w.errors)-maxErrors):]
}

// answer takes a text of an answer; see pluginhost.Options.OnText.
func (w *words) answer(field, text string) {
	w.Add(text)
	if name, ok := strings.CutPrefix(field, "GetInfoResponse."); ok && (name == "version" || name == "summary") {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.info == nil {
			w.info = map[string]string{}
		}
		w.info[name] = text
	}
}

// told returns the version or the summary as it came.
func (w *words) told(name string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.info[name]
}

// takeErrors returns the last errors that the plugin logged since the call
// before.
func (w *words) takeErrors() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	errs := w.errors
	w.errors = nil
	return errs
}
