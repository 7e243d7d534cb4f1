package engine

import (
	"sync"
	"sync/atomic"
)

// goroutines runs functions, each on a goroutine, and keeps a few of those for the
// next. The stack of a new one has to grow for a dial, which takes as long as a
// system call that connects.
type goroutines struct {
	work chan func() // to one that is idle
	idle atomic.Int32
	busy sync.WaitGroup // the functions under way

	closed chan struct{}
	kept   sync.WaitGroup
}

// maxIdle bounds the goroutines that are kept.
const maxIdle = 8

func newGoroutines() *goroutines {
	return &goroutines{work: make(chan func()), closed: make(chan struct{})}
}

// Go runs f at once.
func (c *goroutines) Go(f func()) {
	c.busy.Add(1)
	select {
	case c.work <- f:
	default:
		c.kept.Go(func() { c.serve(f) })
	}
}

func (c *goroutines) serve(f func()) {
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
		case <-c.closed:
			return
		}
	}
}

// Wait returns once no function is under way.
func (c *goroutines) Wait() { c.busy.Wait() }

// Close ends the goroutines that are kept. Go is not to be called any more.
func (c *goroutines) Close() {
	close(c.closed)
	c.kept.Wait()
}
