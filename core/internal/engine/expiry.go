package engine

import (
	"log/slog"
	"sync"
	"time"

	"github.com/tunneld/tunneld/core/status"
)

const (
	// soonEnding is how long before its end a certificate is warned of.
	soonEnding = 14 * 24 * time.Hour
	// endingAgain is how often.
	endingAgain = 24 * time.Hour
	// endingLook is how often the certificates are looked at: files are replaced. Plugins
	// tell of theirs soon after a start.
	endingLook      = time.Hour
	endingFirstLook = time.Minute
)

// expiry warns of the certificates of listeners and upstreams that end soon: at a start and
// a reload, and then every day. One timer is for all of them.
type expiry struct {
	log    *slog.Logger
	status func() status.Status

	mu      sync.Mutex
	told    map[ending]time.Time // when it was last
	timer   *time.Timer          // nil: it has not begun
	stopped bool
}

// ending is the end of a certificate of a block.
type ending struct {
	kind, id, file string
	at             int64 // seconds since the epoch
}

func newExpiry(log *slog.Logger, status func() status.Status) *expiry {
	return &expiry{log: log, status: status, told: map[ending]time.Time{}}
}

// begin looks at the certificates of a configuration that was put in force, and goes on
// doing so. anew warns also of those that were warned of within the day.
func (x *expiry) begin(anew bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.stopped {
		return
	}
	if anew {
		clear(x.told)
	}
	x.look()
	if x.timer == nil {
		x.timer = time.AfterFunc(endingFirstLook, x.again)
		return
	}
	x.timer.Reset(endingFirstLook)
}

func (x *expiry) again() {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.stopped {
		return
	}
	x.look()
	x.timer.Reset(endingLook)
}

// stop ends it. It waits for a look that is under way.
func (x *expiry) stop() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.stopped = true
	if x.timer != nil {
		x.timer.Stop()
	}
}

// look is called with mu held.
func (x *expiry) look() {
	now, s := time.Now(), x.status()
	told := map[ending]time.Time{}
	all := func(kind, id string, certificates []status.Certificate) {
		for _, c := range certificates {
			if c.NotAfter.Sub(now) > soonEnding {
				continue
			}
			e := ending{kind, id, c.File, c.NotAfter.Unix()}
			if told[e] = x.told[e]; now.Sub(told[e]) >= endingAgain {
				told[e] = now
				x.tell(e, c.NotAfter, now)
			}
		}
	}
	for _, l := range s.Listeners {
		all(ofListener, l.ID, l.Certificates)
	}
	for _, u := range s.Upstreams {
		all(ofUpstream, u.ID, u.Certificates)
	}
	x.told = told
}

func (x *expiry) tell(e ending, at, now time.Time) {
	attrs := []any{e.kind, e.id, "file", e.file, "not_after", at.UTC().Format(time.RFC3339)}
	const hint = "replace the file: it is followed, and needs no reload"
	if at.Before(now) {
		x.log.Warn("certificate has ended", append(attrs, "hint", hint)...)
		return
	}
	x.log.Warn("certificate ends soon", append(attrs, "days_left", int(at.Sub(now)/(24*time.Hour)), "hint", hint)...)
}
