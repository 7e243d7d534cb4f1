package soht

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// A close that is not answered leaves a connection, and in mode "stateful" a
// thread, at the server, which has none left once 200 are lost so. It is
// repeated until it is answered, or for closeLife: by then whatever drops what
// is idle has dropped it.
const (
	closeLife     = 10 * time.Minute
	repeatTimeout = 10 * time.Second
	firstRepeat   = time.Second
	lastRepeat    = 30 * time.Second
	// maxRepeats bounds what is kept of a server that is gone.
	maxRepeats = 10_000
)

// repeater repeats closes, one at a time: a server that is stuck is not helped by
// many requests.
type repeater struct {
	mu     sync.Mutex
	queue  []lostClose // the next first
	pause  time.Duration
	lost   int             // of this episode: given up
	log    *slog.Logger    // nil: nothing is logged
	report func(count int) // how many are unanswered; or nil
	closed bool
}

type lostClose struct {
	client *client
	id     string
	until  time.Time
}

// tellTo sets where losses are reported: nowhere before the call, and nowhere after
// the upstream's Close.
func (r *repeater) tellTo(log *slog.Logger, report func(count int)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.log, r.report = log, report
}

// close is called once the upstream is no longer in use. What is due goes on.
func (r *repeater) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed, r.log, r.report = true, nil, nil
}

// add takes a close over that was not answered.
func (r *repeater) add(c *client, id string, cause error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.queue) >= maxRepeats {
		r.queue = r.queue[1:]
		r.lost++
	}
	r.queue = append(r.queue, lostClose{c, id, time.Now().Add(closeLife)})
	if len(r.queue) == 1 {
		r.pause, r.lost = firstRepeat, 0
		r.later()
		if r.log != nil {
			r.log.Warn("the server does not answer the close of a tunnel, which may occupy one of its threads; the close is repeated in the background",
				"err", cause, "hint", "check the server's log and its number of threads; max_connections of the upstream should be well below that")
		}
	}
	r.tell()
}

// later has the first of the queue tried after a while. It is called with mu
// held, while there is no other try.
func (r *repeater) later() { time.AfterFunc(r.pause, r.try) }

// try repeats closes until one is not answered.
func (r *repeater) try() {
	for {
		r.mu.Lock()
		next := r.queue[0]
		r.mu.Unlock()
		ctx, cancel := context.WithTimeout(context.Background(), repeatTimeout)
		err := next.client.close(ctx, next.id)
		cancel()
		if !r.tried(next, err) {
			return
		}
	}
}

// tried says whether the next is to be tried at once.
func (r *repeater) tried(this lostClose, err error) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	// It need not be there any more: the queue is bounded.
	waits := len(r.queue) > 0 && r.queue[0] == this
	if waits {
		r.queue = r.queue[1:]
	}
	if err == nil {
		r.pause = firstRepeat
	} else {
		if waits {
			r.queue = append(r.queue, this)
		}
		r.giveUp()
	}
	r.tell()
	if len(r.queue) == 0 {
		r.over(this.client)
		return false
	}
	if err != nil {
		r.later()
		r.pause = min(2*r.pause, lastRepeat)
	}
	return err == nil
}

// giveUp drops what has been repeated for long enough: all of it at once, since one
// try at a time may take days for a long queue. It is called with mu held.
func (r *repeater) giveUp() {
	before, now := len(r.queue), time.Now()
	r.queue = slices.DeleteFunc(r.queue, func(c lostClose) bool { return now.After(c.until) })
	r.lost += before - len(r.queue)
}

// over ends an episode. It is called with mu held.
func (r *repeater) over(c *client) {
	if r.log != nil {
		r.log.Info("every close of a tunnel is answered again", "given_up", r.lost)
	}
	if r.closed {
		c.transport.Load().CloseIdleConnections()
	}
}

// tell is called with mu held.
func (r *repeater) tell() {
	if r.report != nil {
		r.report(len(r.queue))
	}
}
