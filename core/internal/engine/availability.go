package engine

import (
	"cmp"
	"log/slog"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/tunneld/tunneld/core/internal/config"
	"github.com/tunneld/tunneld/core/internal/pluginhost"
	"github.com/tunneld/tunneld/core/internal/tunnel"
	"github.com/tunneld/tunneld/core/status"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

const (
	// maxRetryAfter bounds for how long a far end, or a plugin, can have its upstream
	// passed over. A dial every now and then costs it little.
	maxRetryAfter = 5 * time.Minute
	// failingPause is how long an upstream is passed over whose plugin reports it
	// failing, before a dial tries it again. Most plugins report how the last dial
	// went: without another they would never find out that it works again.
	failingPause = 10 * time.Second
)

// availability is whether an upstream is worth a dial now. It belongs to the upstream's
// name and values and to its plugin's process, and outlives generations that leave
// these alone. Only the choice of upstreams uses it. It is safe for concurrent use.
type availability struct {
	id      string
	repeats *repeats
	life    *life         // the upstream's
	pause   time.Duration // failingPause

	mu sync.Mutex
	// retry is when the far end said that a failed dial may be repeated, and answer
	// what else it said; zero: it said nothing, or a dial has succeeded since.
	retry  time.Time
	answer string
	// failing is the plugin's newest report, and report its message. From probe on a
	// dial may try the upstream all the same.
	failing bool
	report  string
	probe   time.Time
	heard   bool // the plugin has reported, or died, or a dial has succeeded
	// among: a route has another upstream beside it, so that it can be passed over;
	// told: the log says that it is.
	among, told bool
	// retired: what is heard now is of values, or of a process, that no configuration
	// has any more.
	retired bool
}

// usability is an availability at one moment.
type usability struct {
	reason  string    // status.Unusable's; empty: usable
	until   time.Time // zero: not known
	message string
}

func (v usability) usable() bool { return v.reason == "" }

// soonest is until as a number; where it is not known it is far away.
func (v usability) soonest() int64 {
	if v.until.IsZero() {
		return math.MaxInt64
	}
	return v.until.UnixNano()
}

func (a *availability) at(now time.Time) usability {
	if !a.life.is().Takes() {
		return usability{reason: "drained"}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.heardOf(now)
}

// heardOf is called with mu held.
func (a *availability) heardOf(now time.Time) usability {
	switch {
	case a.retry.After(now):
		v := usability{reason: "retry_after", until: a.retry, message: a.answer}
		if a.failing && a.probe.After(v.until) {
			v.until = a.probe
		}
		return v
	case a.failing && a.probe.After(now):
		return usability{reason: "health", until: a.probe, message: a.report}
	}
	return usability{}
}

// tried is called before each dial: one of those that come after the pause of a
// failing upstream is the probe, and the others go on passing it over.
func (a *availability) tried(now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.failing && !a.probe.After(now) {
		a.probe = now.Add(a.pause)
	}
}

// dialed is called after each dial; err is nil if it succeeded.
func (a *availability) dialed(now time.Time, err *tunnel.DialError) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.retired:
	case err == nil:
		a.clear(now)
	case err.RetryAfter > 0:
		a.retry, a.answer = now.Add(min(err.RetryAfter, maxRetryAfter)), err.Message
		a.tell(now)
	}
}

// lost is called when the plugin's process has died. What the process reported does not
// hold for the next.
func (a *availability) lost(now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.clear(now)
}

// clear is called with mu held.
func (a *availability) clear(now time.Time) {
	a.retry, a.failing, a.heard = time.Time{}, false, true
	a.tell(now)
}

// reported is called with what the plugin reports of the upstream, or, if stored, with
// an earlier report, which counts only if nothing else has been heard yet.
func (a *availability) reported(now time.Time, s *pluginv1.UpstreamStatus, stored bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.retired || stored && a.heard {
		return
	}
	a.heard = true
	failing := s.GetHealth() == pluginv1.Health_HEALTH_FAILING
	if failing {
		a.report = s.GetMessage()
	}
	if failing && !a.failing {
		a.probe = now.Add(a.pause)
	}
	a.failing = failing
	a.tell(now)
}

// inForce is called for each configuration that has the upstream; among says whether one
// of its routes has another upstream too.
func (a *availability) inForce(now time.Time, among bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.among = among
	a.told = a.told && among
	a.tell(now)
}

// retire ends the record: a dial that still has it, and a process that is to end, say
// nothing of the upstream any more.
func (a *availability) retire() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.retired = true
}

// tell logs a change, and nothing while there is none: a time that has passed ends
// nothing, but the dial that succeeds then. It is called with mu held.
func (a *availability) tell(now time.Time) {
	out := a.among && (a.failing || !a.retry.IsZero())
	if out == a.told {
		return
	}
	v := a.heardOf(now)
	if out && v.usable() {
		return // its time had passed before a route had another
	}
	a.told = out
	if !out {
		a.repeats.write(slog.LevelInfo, repeatKey{message: "upstream is usable again", upstream: a.id},
			func() []any { return []any{"upstream", a.id} })
		return
	}
	a.repeats.write(slog.LevelWarn, repeatKey{message: "upstream is passed over while a route has another", upstream: a.id, reason: v.reason},
		func() []any {
			return []any{"upstream", a.id, "reason", v.reason, "until", v.until.Round(time.Millisecond), "err", v.message}
		})
}

func (a *availability) status(now time.Time) *status.Unusable {
	v := a.at(now)
	if v.usable() {
		return nil
	}
	return &status.Unusable{Reason: v.reason, Until: v.until, Message: v.message}
}

// choose returns upstreams in the order in which they are to be tried: those that are
// usable as the route has them, and then the others, the one that is free soonest
// first.
func choose(all []upstream, now time.Time) []upstream {
	type passed struct {
		upstream
		usability
	}
	var out []passed
	for _, u := range all {
		if v := u.availability.at(now); !v.usable() {
			out = append(out, passed{u, v})
		}
	}
	if len(out) == 0 || len(all) == 1 {
		return all
	}
	slices.SortStableFunc(out, func(a, b passed) int { return cmp.Compare(a.soonest(), b.soonest()) })
	order := make([]upstream, 0, len(all))
	for _, u := range all {
		if !slices.ContainsFunc(out, func(p passed) bool { return p.availability == u.availability }) {
			order = append(order, u)
		}
	}
	for _, p := range out {
		order = append(order, p.upstream)
	}
	return order
}

// availabilityKey names an upstream over generations: another hash is another one, and
// so is another process of its plugin, which is started beside the old one.
type availabilityKey struct {
	plugin     *pluginhost.Plugin // nil: a built-in one
	name, hash string
}

// availabilities are those of all upstreams.
type availabilities struct {
	repeats *repeats
	pause   time.Duration
	mu      sync.Mutex
	byKey   map[availabilityKey]*availability
}

// newAvailabilities returns none yet. pause is how long a failing upstream is passed
// over, failingPause if it is 0.
func newAvailabilities(r *repeats, pause time.Duration) *availabilities {
	return &availabilities{repeats: r, pause: cmp.Or(pause, failingPause), byKey: map[availabilityKey]*availability{}}
}

// of returns the record of an upstream by its plugin, which is made where there is none.
func (all *availabilities) of(u config.Upstream, p *pluginhost.Plugin, life *life) *availability {
	key := availabilityKey{p, u.Name, u.Hash}
	all.mu.Lock()
	defer all.mu.Unlock()
	a := all.byKey[key]
	if a == nil {
		a = &availability{id: u.ID(), repeats: all.repeats, life: life, pause: all.pause}
		all.byKey[key] = a
	}
	return a
}

// reported passes on what a plugin says of its upstreams; of others it says nothing.
func (all *availabilities) reported(p *pluginhost.Plugin, upstreams []*pluginv1.UpstreamStatus) {
	all.pass(p, upstreams, false)
}

func (all *availabilities) pass(p *pluginhost.Plugin, upstreams []*pluginv1.UpstreamStatus, stored bool) {
	now := time.Now()
	for _, u := range upstreams {
		all.mu.Lock()
		a := all.byKey[availabilityKey{p, u.GetName(), u.GetConfigHash()}]
		all.mu.Unlock()
		if a != nil {
			a.reported(now, u, stored)
		}
	}
}

// catchUp takes what a plugin has reported before its upstreams had a record.
func (all *availabilities) catchUp(p *pluginhost.Plugin) {
	all.pass(p, p.State().Upstreams, true)
}

// lost is called when the process of a plugin has died.
func (all *availabilities) lost(p *pluginhost.Plugin) {
	now := time.Now()
	all.mu.Lock()
	defer all.mu.Unlock()
	for key, a := range all.byKey {
		if key.plugin == p {
			a.lost(now)
		}
	}
}

// retain retires the records that no upstream of the configuration in force has.
func (all *availabilities) retain(used map[string]upstream) {
	all.mu.Lock()
	defer all.mu.Unlock()
	for key, a := range all.byKey {
		if used[a.id].availability != a {
			a.retire()
			delete(all.byKey, key)
		}
	}
}
