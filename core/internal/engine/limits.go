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

// take reserves a slot, or says which limit is in the way. limit is the
// daemon's.
func (s *slots) take(limit int, l config.Listener, source netip.Addr) error {
	key := sourceKey{l.ID(), source}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.total >= limit:
		return fmt.Errorf("daemon.max_connections: %d connections are open", s.total)
	case l.Limits.MaxConnections > 0 && s.listener[key.listener] >= l.Limits.MaxConnections:
		return fmt.Errorf("limits.max_connections: %d connections are open on this listener", s.listener[key.listener])
	case l.Limits.MaxPerSource > 0 && s.source[key] >= l.Limits.MaxPerSource:
		return fmt.Errorf("limits.max_per_source: %d connections are open from %s", s.source[key], source)
	}
	s.total++
	s.listener[key.listener]++
	s.source[key]++
	return nil
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
