package pluginhost

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/tunneld/tunneld/internal/pluginwire"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// logged is the watcher of a process that the daemon runs. Lines in the form of the
// SDK's log are logged at their level, all others as warnings, both within bounds: a
// plugin that prints without end fills neither the log nor the daemon's memory, and is
// not slowed down either.
type logged struct {
	log *slog.Logger
	// reported takes what the plugin says of its upstreams.
	reported func([]*pluginv1.UpstreamStatus)

	mu      sync.Mutex
	plain   allowance // lines that nobody formatted for the log
	lines   allowance // lines of the SDK's log
	strange allowance // records that cannot be used
	dropped int
}

func newLogged(log *slog.Logger, reported func([]*pluginv1.UpstreamStatus)) *logged {
	return &logged{
		log:      log,
		reported: reported,
		plain:    allowance{rate: 20, burst: 100},
		lines:    allowance{rate: 1000, burst: 5000},
		strange:  allowance{rate: 1, burst: 10},
	}
}

// Printed logs a line.
func (w *logged) Printed(l Line) {
	ctx := context.Background()
	a := &w.plain
	if l.IsLog {
		if a = &w.lines; !w.log.Enabled(ctx, l.Level) {
			return
		}
	}
	w.mu.Lock()
	if !a.take(time.Now()) {
		w.dropped++
		w.mu.Unlock()
		return
	}
	w.mu.Unlock()
	w.Silent()
	if l.IsLog {
		w.log.LogAttrs(ctx, l.Level, l.Message, l.Attrs...)
		return
	}
	w.log.Warn("plugin printed", "stream", l.Stream, "line", l.Message)
}

// Silent tells what was dropped.
func (w *logged) Silent() {
	w.mu.Lock()
	dropped := w.dropped
	w.dropped = 0
	w.mu.Unlock()
	if dropped > 0 {
		w.log.Warn("plugin prints too much: lines were dropped", "lines", dropped)
	}
}

// Sent logs a record that cannot be used.
func (w *logged) Sent(r pluginwire.Record, err error) {
	if err == nil && r.Kind != pluginwire.Abort {
		return
	}
	w.mu.Lock()
	taken := w.strange.take(time.Now())
	w.mu.Unlock()
	switch {
	case !taken:
	case err != nil:
		w.log.Warn("plugin sent a bad record", "err", errors.Unwrap(err))
	default:
		w.log.Warn("plugin sent an ABORT, which only the daemon may send")
	}
}

// Reported passes on what the plugin says of its upstreams.
func (w *logged) Reported(u []*pluginv1.UpstreamStatus) { w.reported(u) }

// allowance is a token bucket: rate a second, burst at once. It starts full.
type allowance struct {
	rate, burst float64
	used        float64
	at          time.Time
}

func (a *allowance) take(now time.Time) bool {
	a.used = max(0, a.used-a.rate*now.Sub(a.at).Seconds())
	a.at = now
	if a.used+1 > a.burst {
		return false
	}
	a.used++
	return true
}
