package splice

import (
	"container/heap"
	"time"
)

// pauseGrain is what pauses end at multiples of, so that many end with one wake-up.
const pauseGrain = time.Millisecond

// pause is that of a direction that waits for bandwidth.
type pause struct {
	slot       *slot
	direction  int
	since, due time.Duration
	place      int // its number among the pauses, from 1; 0: it is none
}

// pauses are those of a worker: a heap, whose first ends first.
type pauses []*allowance

func (p pauses) Len() int { return len(p) }

func (p pauses) Less(i, j int) bool { return p[i].pause.due < p[j].pause.due }

func (p pauses) Swap(i, j int) {
	p[i], p[j] = p[j], p[i]
	p[i].pause.place, p[j].pause.place = i+1, j+1
}

// Push implements heap.Interface.
func (p *pauses) Push(x any) {
	*p = append(*p, x.(*allowance))
	(*p)[len(*p)-1].pause.place = len(*p)
}

// Pop implements heap.Interface.
func (p *pauses) Pop() any {
	last := len(*p) - 1
	a := (*p)[last]
	(*p)[last] = nil
	*p = (*p)[:last]
	return a
}

// next is the moment at which the first pause ends; 0: there is none.
func (p pauses) next() time.Duration {
	if len(p) == 0 {
		return 0
	}
	return p[0].pause.due
}

// allowance is that of direction d; nil: it may move as much as it can.
func (s *slot) allowance(d int) *allowance {
	if s.meter == nil {
		return nil
	}
	return s.meter.ways[s.side(d)]
}

// paused says whether direction d waits for bandwidth.
func (s *slot) paused(d int) bool {
	a := s.allowance(d)
	return a != nil && a.pause.place > 0
}

// allowed is how many bytes direction d, whose allowance a is, may read now; 0: it is
// paused.
func (w *worker) allowed(s *slot, d int, a *allowance) int {
	switch {
	case a.pause.place > 0:
		return 0
	case a.granted > 0:
		return a.granted
	}
	a.granted = a.size()
	if wait := a.take(a.granted, w.now); wait > 0 {
		a.pause = pause{slot: s, direction: d, since: w.now, due: (w.now + wait + pauseGrain - 1).Truncate(pauseGrain)}
		heap.Push(&w.pauses, a)
		w.waiting.Add(1)
		return 0
	}
	return a.granted
}

// resume lets those directions go on whose pause is over.
func (w *worker) resume() {
	for len(w.pauses) > 0 && w.pauses[0].pause.due <= w.now {
		a := w.pauses[0]
		s := a.pause.slot
		a.wokenUp(w.now, a.pause.due)
		w.unpause(a)
		h := w.enter(s)
		w.turn(s)
		w.leave(s, h)
	}
}

// unpause ends a pause, if there is one.
func (w *worker) unpause(a *allowance) {
	p := a.pause
	if p.place == 0 {
		return
	}
	heap.Remove(&w.pauses, p.place-1)
	w.waiting.Add(-1)
	a.pause = pause{}
	if moved := p.slot.movedBy(p.direction); moved != nil {
		moved.Paused.Add(int64(w.now - p.since))
	}
}

// refund gives back what a direction was granted and does not use.
func (s *slot) refund(d int) {
	if a := s.allowance(d); a != nil && a.pause.place == 0 {
		a.giveBack()
	}
}

// unmeter ends the pauses of a tunnel, and gives back what it was granted.
func (w *worker) unmeter(s *slot) {
	for d := range s.dirs {
		if a := s.allowance(d); a != nil {
			w.unpause(a)
			a.giveBack()
		}
	}
}

// measure applies the rates that are in force to a tunnel.
func (w *worker) measure(s *slot) {
	if s.meter == nil {
		return
	}
	w.unmeter(s)
	s.meter = s.meter.rates.measure(s.meter, w.now)
}
