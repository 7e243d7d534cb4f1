package soht

import (
	"sync"
	"time"
)

// outbox is what the client has written and no request has taken yet: one
// write's worth, while another is in flight. One goroutine writes, one takes.
type outbox struct {
	size    int // write_size
	mu      sync.Mutex
	fill    []byte // written, not taken
	spare   []byte // taken, until the next take
	eof     bool
	wrote   chan struct{} // capacity 1: fill or eof changed
	taken   chan struct{} // capacity 1: fill was emptied
	flushed chan struct{} // closed once all is sent and eof
}

func newOutbox(size int) *outbox {
	return &outbox{
		size:    size,
		wrote:   make(chan struct{}, 1),
		taken:   make(chan struct{}, 1),
		flushed: make(chan struct{}),
	}
}

func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// write returns once p is in the box or done is closed, with how much of p is.
func (o *outbox) write(p []byte, done <-chan struct{}) int {
	written := 0
	for {
		o.mu.Lock()
		n := min(o.size-len(o.fill), len(p)-written)
		o.fill = append(o.fill, p[written:written+n]...)
		o.mu.Unlock()
		if n > 0 {
			notify(o.wrote)
		}
		if written += n; written == len(p) {
			return written
		}
		select {
		case <-o.taken:
		case <-done:
			return written
		}
	}
}

// end says that nothing more is written.
func (o *outbox) end() {
	o.mu.Lock()
	o.eof = true
	o.mu.Unlock()
	notify(o.wrote)
}

// take waits for something to send, and then up to linger for more of it. It
// returns what there is: valid until the next take, and empty where there is
// nothing. last says that nothing more will come.
func (o *outbox) take(linger time.Duration, done <-chan struct{}) (data []byte, last bool) {
	waited, n, eof := o.await(-1, done, func(n int, eof bool) bool { return n > 0 || eof })
	if waited && n > 0 && n < o.size && !eof && linger > 0 {
		o.await(linger, done, func(n int, eof bool) bool { return n == o.size || eof })
	}
	o.mu.Lock()
	data, last = o.fill, o.eof
	o.fill, o.spare = o.spare[:0], o.fill
	o.mu.Unlock()
	if len(data) > 0 {
		notify(o.taken)
	}
	return data, last
}

// await waits until enough holds for the box, up to limit where that is not
// negative. It says whether it had to wait, and what the box is like.
func (o *outbox) await(limit time.Duration, done <-chan struct{}, enough func(n int, eof bool) bool) (waited bool, n int, eof bool) {
	var timeout <-chan time.Time
	for {
		o.mu.Lock()
		n, eof = len(o.fill), o.eof
		o.mu.Unlock()
		if enough(n, eof) || limit == 0 {
			return waited, n, eof
		}
		if timeout == nil && limit > 0 {
			t := time.NewTimer(limit)
			defer t.Stop()
			timeout = t.C
		}
		waited = true
		select {
		case <-o.wrote:
		case <-timeout:
			return waited, n, eof
		case <-done:
			return waited, n, eof
		}
	}
}

// sentAll says that all has arrived that ever will be written.
func (o *outbox) sentAll() { close(o.flushed) }

// allSent says whether sentAll was called.
func (o *outbox) allSent() bool {
	select {
	case <-o.flushed:
		return true
	default:
		return false
	}
}
