package auth

import (
	"container/list"
	"net/netip"
	"sync"
)

// maxSeen bounds the pairs of source and user that a realm remembers. The one that has
// not come for longest is forgotten, and its next login waits with those of its source.
const maxSeen = 8192

// seen are the sources that each user has logged in from. What is remembered answers at
// once only there: anywhere else it would answer a thousand guesses a second (ADR 13).
type seen struct {
	mu    sync.Mutex
	pairs map[pair]*list.Element
	order list.List // of pair, the longest unused first
}

type pair struct {
	from netip.Prefix
	user string
}

func newSeen() *seen {
	return &seen{pairs: map[pair]*list.Element{}}
}

func (s *seen) has(from netip.Prefix, user string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.pairs[pair{from, user}]
	if e != nil {
		s.order.MoveToBack(e)
	}
	return e != nil
}

func (s *seen) add(from netip.Prefix, user string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := pair{from, user}
	if s.pairs[p] != nil {
		return
	}
	s.pairs[p] = s.order.PushBack(p)
	if s.order.Len() > maxSeen {
		delete(s.pairs, s.order.Remove(s.order.Front()).(pair))
	}
}
