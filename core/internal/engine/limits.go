package engine

import (
	"fmt"
	"net/netip"
	"sync"

	"github.com/tunneld/tunneld/core/internal/config"
)

// slots counts the connections that are open, so that a limit can refuse one
// before anything is spent on it.
type slots struct {
	mu       sync.Mutex
	total    int
	listener map[string]int
	source   map[sourceKey]int
}

type sourceKey struct {
	listener string
	source   netip.Addr
}

func newSlots() *slots {
	return &slots{listener: map[string]int{}, source: map[sourceKey]int{}}
}

// overLimit says which limit is in the way of a connection.
type overLimit struct {
	limit string // as the configuration names it, or RLIMIT_NOFILE
	state string // how it is reached
	hint  string // what to do; empty: what can be done against any limit
}

func (e *overLimit) Error() string { return e.limit + ": " + e.state }

// take reserves a slot on listener id, or says which limit is in the way. limit
// is the daemon's.
func (s *slots) take(limit ceiling, id string, own config.Limits, source netip.Addr) *overLimit {
	key := sourceKey{id, source}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.total >= limit.connections:
		return limit.over(s.total)
	case own.MaxConnections > 0 && s.listener[id] >= own.MaxConnections:
		return &overLimit{limit: "limits.max_connections", state: fmt.Sprintf("%d connections are open on this listener", s.listener[id])}
	case own.MaxPerSource > 0 && s.source[key] >= own.MaxPerSource:
		return &overLimit{limit: "limits.max_per_source", state: fmt.Sprintf("%d connections are open from %s", s.source[key], source)}
	}
	s.total++
	s.listener[key.listener]++
	s.source[key]++
	return nil
}

// open is how many connections are open on a listener.
func (s *slots) open(listener string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.listener[listener]
}

func (s *slots) give(listener string, source netip.Addr) {
	key := sourceKey{listener, source}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.total--
	if s.listener[listener]--; s.listener[listener] == 0 {
		delete(s.listener, listener)
	}
	if s.source[key]--; s.source[key] == 0 {
		delete(s.source, key)
	}
}
