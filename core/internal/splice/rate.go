package splice

import (
	"sync/atomic"
	"time"
)

// Bandwidth is how many bytes a second tunnels may move, each way. 0: any number.
type Bandwidth struct {
	Up, Down           int64 // each tunnel
	TotalUp, TotalDown int64 // all of them together
}

// Rate is what limits the tunnels of one block of the configuration. The zero value
// limits nothing; Pump.Limit changes that, also for tunnels that are open. It belongs to
// one pump, and is safe for concurrent use.
type Rate struct {
	each  [2]atomic.Int64 // by the side that sends
	total [2]atomic.Pointer[bucket]
}

// set says whether that changed anything.
func (r *Rate) set(b Bandwidth, now time.Duration) (changed bool) {
	for side, rate := range [2]int64{b.Up, b.Down} {
		changed = r.each[side].Swap(rate) != rate || changed
	}
	for side, rate := range [2]int64{b.TotalUp, b.TotalDown} {
		was := r.total[side].Load()
		if was == nil && rate == 0 || was != nil && was.rate == rate {
			continue
		}
		// What was taken from the old bucket is given back to it.
		next := (*bucket)(nil)
		if rate > 0 {
			next = newBucket(rate, now)
		}
		r.total[side].Store(next)
		changed = true
	}
	return changed
}

// Rates are what limits a tunnel: those of the blocks that it was made with. Tunnels of the
// same blocks share them.
type Rates struct {
	blocks []*Rate
	none   meter // of tunnels that nothing limits
}

// NewRates returns the rates of some blocks. The tightest counts at every moment.
func NewRates(blocks ...*Rate) *Rates {
	r := &Rates{blocks: blocks}
	r.none.rates = r
	return r
}

// meter is what a tunnel may move now.
type meter struct {
	rates *Rates
	ways  [2]*allowance // by the side that sends; nil: as much as it can
}

// measure returns the meter of a tunnel by the rates that are in force. was is the one that
// it had, or nil.
func (r *Rates) measure(was *meter, now time.Duration) *meter {
	m := &r.none
	for side := range m.ways {
		a := r.allowance(side, now)
		if a == nil {
			continue
		}
		if m == &r.none {
			m = &meter{rates: r}
		}
		if m.ways[side] = a; a.own == nil || was == nil || was.ways[side] == nil {
			continue
		}
		if old := was.ways[side].own; old != nil && old.rate == a.own.rate {
			a.own = old // a change of another limit brings no credit
		}
	}
	return m
}

// allowance returns that of what a side sends, or nil where nothing limits it.
func (r *Rates) allowance(side int, now time.Duration) *allowance {
	var own int64
	a := &allowance{turn: budget, most: budget}
	for _, b := range r.blocks {
		if each := b.each[side].Load(); each > 0 && (own == 0 || each < own) {
			own = each
		}
		if total := b.total[side].Load(); total != nil {
			a.totals = append(a.totals, total)
			a.most = min(a.most, portion(total.rate, totalTurn))
		}
	}
	a.turn = a.most
	if own > 0 {
		a.own = newBucket(own, now)
		a.turn = min(a.turn, portion(own, ownTurn))
	}
	if a.own == nil && len(a.totals) == 0 {
		return nil
	}
	return a
}

const (
	// ownTurn is how much, in time, a tunnel moves at once by its own rate: it bounds how
	// often it wakes up.
	ownTurn = 10 * time.Millisecond
	// totalTurn is the same of a rate that tunnels share, where each waits for the others'
	// turns.
	totalTurn = time.Millisecond
	// leastTurn is worth a wake-up, as long as it does not take longer than slowestTurn.
	leastTurn   = 4 << 10
	slowestTurn = 125 * time.Millisecond
	// saved is the time of which a bucket that nobody takes from keeps the bytes.
	saved = 15 * time.Millisecond
	// early is how long before their moment bytes may be moved: no pause is shorter.
	early = 5 * time.Millisecond
	// latest bounds what a direction may catch up with that was woken up late, as on a busy
	// machine.
	latest = 250 * time.Millisecond
)

// portion is the bytes of one turn at a rate.
func portion(rate int64, turn time.Duration) int {
	in := func(d time.Duration) int64 { return int64(float64(rate) * d.Seconds()) }
	return int(max(in(turn), min(in(slowestTurn), leastTurn), 1))
}

// allowance is how many bytes one direction of a tunnel may read. One goroutine uses it at
// a time.
type allowance struct {
	own    *bucket // nil: it has no rate of its own
	totals []*bucket
	turn   int           // bytes that are worth a wake-up
	most   int           // and those that may pass others' by at once
	queue  time.Duration // how long the others' took, the last time

	// What it has not used since from, for it was woken up late, it may use until then.
	from, until time.Duration

	granted int   // bytes that are taken and not moved
	pause   pause // a worker's
}

// size is how many bytes to take at once: no fewer than its own rate allows in the time of
// the others' turns, so that it has its share of the total also where it wants little.
func (a *allowance) size() int {
	if a.own == nil {
		return a.turn
	}
	return min(max(int(float64(a.own.rate)*a.queue.Seconds()), a.turn), a.most)
}

// take takes the places of n bytes in all queues, and returns how long to wait until they
// may be moved; 0: not at all.
func (a *allowance) take(n int, now time.Duration) (wait time.Duration) {
	due, oldest := now, now-saved
	if now < a.until {
		oldest = min(oldest, a.from)
	}
	for _, b := range a.totals {
		due = max(due, b.take(n, oldest))
	}
	a.queue = due - now
	if a.own != nil {
		due = max(due, a.own.take(n, oldest))
	}
	if due <= now+early {
		return 0
	}
	return due - now
}

// wokenUp is told when a pause has ended that should have ended at due.
func (a *allowance) wokenUp(now, due time.Duration) {
	if late := min(now-due, latest); late > saved {
		a.from, a.until = now-late, now+late
	}
}

// giveBack gives back what was granted and is not used.
func (a *allowance) giveBack() {
	if a.granted == 0 {
		return
	}
	if a.own != nil {
		a.own.giveBack(a.granted)
	}
	for _, b := range a.totals {
		b.giveBack(a.granted)
	}
	a.granted = 0
}

// bucket lets bytes through at a rate, any number of tunnels': the virtual scheduling of
// ITU-T I.371, annex A. Whoever takes gets the next place in time, so each waits for those
// before it and nobody is passed over; a place costs one atomic operation.
type bucket struct {
	rate int64        // bytes a second
	next atomic.Int64 // the moment of the next place, on the pump's clock
}

func newBucket(rate int64, now time.Duration) *bucket {
	b := &bucket{rate: rate}
	b.next.Store(int64(now))
	return b
}

// take takes the place of the next n bytes, none that is older than oldest, and returns its
// moment.
func (b *bucket) take(n int, oldest time.Duration) time.Duration {
	for {
		next := b.next.Load()
		place := max(next, int64(oldest))
		if b.next.CompareAndSwap(next, place+b.time(n)) {
			return time.Duration(place)
		}
	}
}

// giveBack shortens the queue by n bytes.
func (b *bucket) giveBack(n int) { b.next.Add(-b.time(n)) }

// time is how long n bytes take, in nanoseconds. n is so small that nothing overflows.
func (b *bucket) time(n int) int64 { return (int64(n)*int64(time.Second) + b.rate - 1) / b.rate }
