package auth

import (
	"context"
	"runtime"
	"sync/atomic"
)

// maxWaiting bounds the logins that wait until one of those is checked that are being
// checked. Each is of another source.
const maxWaiting = 32

// turns bounds how many passwords are checked at a time, to half of the processors that
// there are at the start: a check keeps one busy, and the tunnels need some, too.
type turns struct {
	slots   chan struct{}
	waiting atomic.Int64
}

func newTurns() *turns {
	return &turns{slots: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2))}
}

// take waits for a turn, first come, first served. After nil, give gives it back.
func (t *turns) take(ctx context.Context) error {
	select {
	case t.slots <- struct{}{}:
		return nil
	default:
	}
	defer t.waiting.Add(-1)
	if t.waiting.Add(1) > maxWaiting {
		return ErrBusy
	}
	select {
	case t.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (t *turns) give() { <-t.slots }
