package engine

import (
	"slices"
	"sync"

	"github.com/tunneld/tunneld/core/status"
)

// life is the state of one thing that serves: the daemon, a listener, an upstream. The
// zero value is serving. It is safe for concurrent use.
type life struct {
	mu    sync.Mutex
	state status.State // empty: serving
}

// ways are the states that may follow each one. What drains may serve again: a reload
// that brings a listener back. What is closed is not used again.
var ways = map[status.State][]status.State{
	status.Serving:  {status.Leaving, status.Draining, status.Closed},
	status.Leaving:  {status.Serving, status.Draining, status.Closed},
	status.Draining: {status.Serving, status.Closed},
}

// is returns the state.
func (l *life) is() status.State {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.now()
}

func (l *life) now() status.State {
	if l.state == "" {
		return status.Serving
	}
	return l.state
}

// turn changes the state, and says whether it did: not to the one that it is in, and
// not where there is no way.
func (l *life) turn(to status.State) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !slices.Contains(ways[l.now()], to) {
		return false
	}
	l.state = to
	return true
}
