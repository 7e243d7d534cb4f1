package splice

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// measure applies the rates that are in force to the tunnels.
func (p *portable) measure() { p.each((*flow).measure) }

// measure applies the rates that are in force, also to bytes that wait by others.
func (f *flow) measure() {
	if f.Rates == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.meter.Store(f.Rates.measure(f.meter.Load(), f.clock()))
	f.wakeUp()
}

// wakeUp ends all pauses: the rates or the tunnel have changed. It is called with mu held.
func (f *flow) wakeUp() {
	close(f.woken)
	f.woken = make(chan struct{})
}

func (f *flow) clock() time.Duration { return time.Since(f.pump.began) }

// allowance is that of direction d; nil: it may move as much as it can.
func (f *flow) allowance(d int) *allowance {
	if m := f.meter.Load(); m != nil {
		return m.ways[d]
	}
	return nil
}

// most is how many bytes one read of direction d takes.
func (f *flow) most(d int) int {
	if a := f.allowance(d); a != nil {
		return min(a.size(), bufferSize)
	}
	return bufferSize
}

// await returns once the n bytes that direction d has read may be written, or nobody takes
// them any more.
func (f *flow) await(d, n int) {
	for f.allowance(d) != nil && !f.pause(d, n) {
	}
}

// pause waits for the place of n bytes in the queues. False: it has changed what they wait
// for, or whether anybody takes them.
func (f *flow) pause(d, n int) bool {
	f.mu.Lock()
	a, woken, over := f.allowance(d), f.woken, f.broken || f.sides[1-d].over
	f.mu.Unlock()
	if a == nil || over {
		return true
	}
	since := f.clock()
	wait := a.take(n, since)
	if wait == 0 {
		return true
	}
	f.sides[d].paused.Store(true)
	f.pump.waiting.Add(1)
	timer := time.NewTimer(wait)
	waited := true
	select {
	case <-timer.C:
	case <-woken:
		timer.Stop()
		waited = false
		a.granted = n
		a.giveBack()
	}
	f.pump.waiting.Add(-1)
	f.sides[d].paused.Store(false)
	now := f.clock()
	a.wokenUp(now, since+wait)
	if moved := movedBy(f.Traffic, d); moved != nil {
		moved.Paused.Add(int64(now - since))
	}
	return waited
}

// inspectPauses keeps a tunnel that waits for bandwidth from being taken for a silent one,
// and breaks it off where the side is gone that it would go on to read from.
func (f *flow) inspectPauses(age time.Duration) {
	for d := range f.sides {
		src := &f.sides[d]
		if !src.paused.Load() {
			continue
		}
		f.active.Store(int64(age))
		if err := src.lost(); err != nil {
			f.breakOff(brokenBy(d, err), fmt.Errorf("read from %s: %w", src.name, err))
		}
	}
}

// lost is why a side is gone that nobody reads from now, or nil: it is not, or it has ended
// cleanly.
func (s *side) lost() error {
	if s.Relay == nil {
		return s.cut()
	}
	now, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.Relay.ConfirmEnd(now); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil // it has not ended
}
