package serve

import (
	"sync"
	"time"
)

// quiet ends a relay of a protocol that cannot end one direction alone: the far
// end cannot learn of the client's end of file, so all that can still come is
// what it says of itself. A nil quiet never does.
type quiet struct {
	limit time.Duration
	over  func()

	mu       sync.Mutex
	timer    *time.Timer // nil before await
	since    time.Time   // of the silence
	carrying bool        // a byte from the far end is on its way to the client
	ended    bool
}

// newQuiet calls over, on another goroutine, after limit without a byte from the
// far end.
func newQuiet(limit time.Duration, over func()) *quiet { return &quiet{limit: limit, over: over} }

// await begins to count: the far end has taken all that the client has sent.
func (q *quiet) await() {
	if q == nil {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.ended {
		return
	}
	q.since = time.Now()
	q.timer = time.AfterFunc(q.limit, q.expire)
}

// awaiting says that await has begun to count.
func (q *quiet) awaiting() bool {
	if q == nil {
		return false
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.timer != nil
}

// enter is called with bytes of the far end's in hand, and leave once they are
// the client's: one that is slow to take them is not silence. False: the time is
// over, and they came too late.
func (q *quiet) enter() bool {
	if q == nil {
		return true
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.carrying = !q.ended
	return q.carrying
}

func (q *quiet) leave() {
	if q == nil {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.carrying = false
	if q.timer != nil && !q.ended {
		q.since = time.Now()
		q.timer.Reset(q.limit)
	}
}

func (q *quiet) expire() {
	q.mu.Lock()
	// A byte may have come while this waited for its turn.
	expired := !q.ended && !q.carrying && time.Since(q.since) >= q.limit
	q.ended = q.ended || expired
	q.mu.Unlock()
	if expired {
		q.over()
	}
}

// stop is called at the relay's end.
func (q *quiet) stop() {
	if q == nil {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.ended = true
	if q.timer != nil {
		q.timer.Stop()
	}
}
