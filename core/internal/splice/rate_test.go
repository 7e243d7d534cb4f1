package splice

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"time"
)

// runner is a direction in imagined time, that moves what it is allowed to. It is one of a
// worker: it takes before it reads.
type runner struct {
	allowance *allowance
	at        time.Duration // when it looks next
	late      time.Duration // how much later than it wants it wakes up
	moved     int64
	turns     int
	seen      func(at time.Duration, moved int64)
}

// imagine lets the runners run until a moment.
func imagine(runners []*runner, until time.Duration) {
	for {
		next := runners[0]
		for _, r := range runners {
			if r.at < next.at {
				next = r
			}
		}
		if next.at >= until {
			return
		}
		next.turn()
	}
}

// turn moves all that may be moved at the moment, and waits.
func (r *runner) turn() {
	for now := r.at; r.at == now; {
		if r.allowance.granted == 0 {
			r.allowance.granted = r.allowance.size()
			if wait := r.allowance.take(r.allowance.granted, now); wait > 0 {
				r.at += wait + r.late
				r.allowance.wokenUp(r.at, now+wait)
				r.turns++
				return
			}
		}
		r.moved += int64(r.allowance.granted)
		r.allowance.granted = 0
		if r.seen != nil {
			r.seen(now, r.moved)
		}
	}
}

// limited returns the direction up of a tunnel of some blocks.
func limited(now time.Duration, blocks ...Bandwidth) *allowance {
	var rates []*Rate
	for _, b := range blocks {
		r := &Rate{}
		r.set(b, now)
		rates = append(rates, r)
	}
	return NewRates(rates...).measure(nil, now).ways[client]
}

// ahead is how many bytes a direction may ever be ahead of a rate.
func ahead(rate int64, turn int) int64 {
	return int64(float64(rate)*(saved+early).Seconds()) + int64(turn)
}

var someRates = []int64{1 << 10, 10_000, 1 << 20, 100 << 20, 10 << 30}

// TestRateIsExact: at no moment more has passed than the rate allows, and in the end no
// less, however late the wake-ups are, and with few of them.
func TestRateIsExact(t *testing.T) {
	const long = 20 * time.Second
	for _, rate := range someRates {
		for name, limit := range map[string]Bandwidth{"each": {Up: rate}, "total": {TotalUp: rate}, "both": {Up: rate, TotalUp: rate}} {
			for _, late := range []time.Duration{0, 3 * time.Millisecond, 100 * time.Millisecond} {
				t.Run(fmt.Sprintf("%d a second, %s, %s late", rate, name, late), func(t *testing.T) {
					r := &runner{allowance: limited(0, limit), late: late}
					r.seen = func(at time.Duration, moved int64) {
						if most := int64(float64(rate)*at.Seconds()) + ahead(rate, r.allowance.turn); moved > most {
							t.Fatalf("%d bytes after %s, want at most %d", moved, at, most)
						}
					}
					imagine([]*runner{r}, long)
					want := float64(rate) * long.Seconds()
					if got := float64(r.moved); got < 0.99*want-float64(ahead(rate, r.allowance.turn)) {
						t.Errorf("%.0f bytes, want %.0f", got, want)
					}
					if perSecond := float64(r.turns) / long.Seconds(); perSecond > float64(time.Second/early) {
						t.Errorf("%.0f wake-ups a second", perSecond)
					}
				})
			}
		}
	}
}

// TestTightestCounts: of the blocks of a tunnel, each tunnel's rate or the common one.
func TestTightestCounts(t *testing.T) {
	const fast, slow = 40 << 20, 3 << 20
	for name, blocks := range map[string][]Bandwidth{
		"each":  {{Up: fast}, {Up: slow}, {Up: fast, TotalUp: fast}},
		"total": {{Up: fast, TotalUp: fast}, {TotalUp: slow}, {}},
		"down":  {{Up: slow, Down: 1}, {TotalDown: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			r := &runner{allowance: limited(0, blocks...)}
			imagine([]*runner{r}, 10*time.Second)
			if got := float64(r.moved) / (10 * slow); got < 0.99 || got > 1.01 {
				t.Errorf("%.3f of the rate", got)
			}
		})
	}
	if a := limited(0, Bandwidth{Down: 1, TotalDown: 1}, Bandwidth{}); a != nil {
		t.Errorf("what goes up is limited by what goes down: %+v", a)
	}
}

// TestTotalIsFair: tunnels that want more than there is get the same, and one that wants
// less gets what it wants.
func TestTotalIsFair(t *testing.T) {
	const long, greedy = 20 * time.Second, 99
	for _, rate := range []int64{1 << 20, 100 << 20} {
		t.Run(fmt.Sprint(rate), func(t *testing.T) {
			var block Rate
			block.set(Bandwidth{TotalUp: rate}, 0)
			var runners []*runner
			for range greedy {
				runners = append(runners, &runner{allowance: NewRates(&block).measure(nil, 0).ways[client]})
			}
			// It wants a tenth of its share.
			var own Rate
			own.set(Bandwidth{Up: rate / 1000}, 0)
			modest := &runner{allowance: NewRates(&block, &own).measure(nil, 0).ways[client]}
			all := append(runners, modest)
			imagine(all, time.Second) // the first ones had something ahead
			for _, r := range all {
				r.moved = 0
			}
			imagine(all, time.Second+long)
			least, most, sum := runners[0].moved, runners[0].moved, modest.moved
			for _, r := range runners {
				least, most, sum = min(least, r.moved), max(most, r.moved), sum+r.moved
			}
			if got := float64(sum) / float64(rate) / long.Seconds(); got < 0.99 || got > 1.01 {
				t.Errorf("%.3f of the rate", got)
			}
			if most-least > 2*int64(runners[0].allowance.turn) {
				t.Errorf("one got %d bytes, another %d", least, most)
			}
			if got := float64(modest.moved) / float64(rate/1000) / long.Seconds(); got < 0.95 || got > 1.05 {
				t.Errorf("who wants less got %.3f of that", got)
			}
		})
	}
}

// TestNothingIsSaved: after a silence no more passes at once than after none, also for a
// direction that was woken up late before.
func TestNothingIsSaved(t *testing.T) {
	for _, rate := range someRates {
		for name, limit := range map[string]Bandwidth{"each": {Up: rate}, "total": {TotalUp: rate}} {
			t.Run(fmt.Sprintf("%d a second, %s", rate, name), func(t *testing.T) {
				r := &runner{allowance: limited(0, limit), late: 200 * time.Millisecond}
				imagine([]*runner{r}, 5*time.Second)
				r.allowance.giveBack()
				r.at += time.Hour
				before := r.moved
				r.turn()
				if got, most := r.moved-before, ahead(rate, r.allowance.turn); got > most || got == 0 {
					t.Errorf("%d bytes at once, want at most %d", got, most)
				}
			})
		}
	}
}

// TestGivenBack: what one tunnel was granted and does not use is the next one's.
func TestGivenBack(t *testing.T) {
	var block Rate
	block.set(Bandwidth{TotalUp: 1 << 20}, 0)
	one, other := NewRates(&block).measure(nil, 0).ways[client], NewRates(&block).measure(nil, 0).ways[client]
	for other.take(other.turn, 0) == 0 {
	}
	for range 1000 {
		one.granted = one.turn
		if one.take(one.turn, 0) == 0 {
			t.Fatal("it is granted what another has taken")
		}
		one.giveBack()
	}
	const soon = 50 * time.Millisecond
	if wait := other.take(other.turn, 0); wait > soon {
		t.Errorf("the next waits for %s", wait)
	}
}

// TestBucketTogether: takers of several goroutines get places that follow each other.
func TestBucketTogether(t *testing.T) {
	const each, size = 2000, 1000
	b := newBucket(1<<20, 0)
	takers := 4 * runtime.GOMAXPROCS(0)
	places := make([][]time.Duration, takers)
	var wg sync.WaitGroup
	for i := range places {
		wg.Go(func() {
			for range each {
				places[i] = append(places[i], b.take(size, 0))
			}
		})
	}
	wg.Wait()
	seen := map[time.Duration]bool{}
	for _, of := range places {
		for _, p := range of {
			if seen[p] || int64(p)%b.time(size) != 0 {
				t.Fatalf("the place at %s was given twice, or is none", p)
			}
			seen[p] = true
		}
	}
	if next := b.next.Load(); next != int64(takers*each)*b.time(size) {
		t.Errorf("the next place is at %d", next)
	}
}

// TestSetRate: only a change is one; what another limit has given stays taken; nobody waits
// for what was taken at an old rate.
func TestSetRate(t *testing.T) {
	var block Rate
	rates := NewRates(&block)
	m := rates.measure(nil, 0)
	if m != &rates.none || m.ways[client] != nil || m.ways[upstream] != nil {
		t.Errorf("without a limit there is %+v", m)
	}
	limit := Bandwidth{Up: 1, TotalUp: 1 << 10}
	if !block.set(limit, 0) || block.set(limit, 0) {
		t.Error("a change is none, or none is one")
	}
	m = rates.measure(m, 0)
	m.ways[client].take(100, 0)
	if m.ways[upstream] != nil {
		t.Error("the other way is limited as well")
	}
	for _, change := range []Bandwidth{{Up: 1, TotalUp: 1 << 10, Down: 5}, {Up: 1, TotalUp: 1 << 20}} {
		if !block.set(change, 0) {
			t.Error("a change is none")
		}
		if m = rates.measure(m, 0); m.ways[client].take(1, 0) < 99*time.Second {
			t.Error("a change of another limit has brought credit")
		}
	}
	block.set(Bandwidth{Up: 2, TotalUp: 1 << 20}, 0)
	if m = rates.measure(m, 0); m.ways[client].take(1, 0) > 0 {
		t.Error("it waits for what was taken at the old rate")
	}
	block.set(Bandwidth{}, 0)
	if m = rates.measure(m, 0); m != &rates.none {
		t.Errorf("without limits again there is %+v", m)
	}
}

// TestRandomTakers: with any number of tunnels that come and go, and use what they like of
// what they are granted, the total is kept.
func TestRandomTakers(t *testing.T) {
	const rate, long = 8 << 20, 30 * time.Second
	rnd := rand.New(rand.NewPCG(5, 6))
	var block Rate
	block.set(Bandwidth{TotalUp: rate}, 0)
	type tunnel struct {
		*allowance
		at time.Duration // when what it was granted may be moved
	}
	var open []*tunnel
	var sum int64
	for now := time.Duration(0); now < long; now += 50 * time.Microsecond {
		if len(open) < 40 && rnd.IntN(20) == 0 {
			open = append(open, &tunnel{allowance: NewRates(&block).measure(nil, now).ways[client]})
		}
		if len(open) == 0 {
			continue
		}
		i := rnd.IntN(len(open))
		switch one := open[i]; {
		case rnd.IntN(200) == 0: // it ends
			one.giveBack()
			open[i] = open[len(open)-1]
			open = open[:len(open)-1]
		case one.granted == 0:
			one.granted = one.turn
			one.at = now + one.take(one.turn, now)
		case one.at <= now:
			used := one.granted
			if rnd.IntN(3) == 0 {
				used = rnd.IntN(used)
			}
			one.granted -= used
			sum += int64(used)
			one.giveBack()
		}
		if most := int64(float64(rate)*now.Seconds()) + ahead(rate, 41*portion(rate, totalTurn)); sum > most {
			t.Fatalf("%d bytes after %s, want at most %d", sum, now, most)
		}
	}
	t.Logf("%.3f of the rate was used", float64(sum)/rate/long.Seconds())
}
