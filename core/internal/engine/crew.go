package engine

import (
	"sync"
	"sync/atomic"
)

// crew runs functions, each on a goroutine, and keeps a few of those for the
// next. The stack of a new one has to grow for a dial, which takes as long as a
// system call that connects.
type crew struct {
	work chan func() // to one that is idle
	idle atomic.Int32
	busy sync.WaitGroup // the functions under way

	dismissed chan struct{}
	members   sync.WaitGroup
}

// maxIdle bounds the goroutines that are kept.
const maxIdle = 8

func newCrew() *crew {
	return &crew{work: make(chan func()), dismissed: make(chan struct{})}
}

// Go runs f at once.
func (c *crew) Go(f func()) {
	c.busy.Add(1)
	select {
	case c.work <- f:
	default:
		c.members.Go(func() { c.serve(f) })
	}
}

func (c *crew) serve(f func()) {
	for {
		f()
		f = nil // it holds a connection
		c.busy.Done()
		if c.idle.Add(1) > maxIdle {
			c.idle.Add(-1)
			return
		}
		select {
		case f = <-c.work:
			c.idle.Add(-1)
		case <-c.dismissed:
			return
		}
	}
}

// Wait returns once no function is under way.
func (c *crew) Wait() { c.busy.Wait() }

// Dismiss ends the goroutines that are kept. Go is not to be called any more.
func (c *crew) Dismiss() {
	close(c.dismissed)
	c.members.Wait()
}
