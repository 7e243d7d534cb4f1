package engine

import (
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/tunneld/tunneld/core/internal/config"
	"github.com/tunneld/tunneld/core/status"
)

// maxHandshakes bounds the clients whose target is not known yet, of all
// listeners. Each costs some 7 KiB, one between two HTTP requests up to 40 KB.
const maxHandshakes = 8192

// slots counts the connections that are open, so that a limit can refuse one
// before anything is spent on it. A client that is still in its handshake gives
// way to a newcomer: see ADR 7.
type slots struct {
	mu          sync.Mutex
	ceiling     ceiling
	connections pool
	handshakes  pool // those of the connections that are in their handshake
	memory      int  // that handshakes hold for what their clients send, in bytes
	listeners   map[string]*listenerSlots
	source      map[sourceKey]int
	pace        pace
	user        map[userKey]int
}

type userKey struct {
	slots *listenerSlots
	user  string
}

func newSlots() *slots {
	return &slots{listeners: map[string]*listenerSlots{}, source: map[sourceKey]int{}, user: map[userKey]int{}}
}

// split shares the slots out among the listeners with the ids, and returns what
// is known of each. Of others, what is left is kept until it is given back.
func (s *slots) split(limit ceiling, ids []string) map[string]*listenerSlots {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := map[string]*listenerSlots{}
	var connections, handshakes, oldConnections, oldHandshakes []*part
	for _, id := range ids {
		p := s.listeners[id]
		if p == nil || p.life.is() == status.Closed {
			p = &listenerSlots{}
		}
		p.life.turn(status.Serving)
		next[id] = p
		connections, handshakes = append(connections, &p.connections), append(handshakes, &p.handshakes)
	}
	for id, p := range s.listeners {
		switch {
		case next[id] != nil:
		case p.connections.taken == 0:
			p.life.turn(status.Closed)
		default:
			p.life.turn(status.Draining)
			next[id] = p
			oldConnections, oldHandshakes = append(oldConnections, &p.connections), append(oldHandshakes, &p.handshakes)
		}
	}
	s.connections.split(limit.connections, connections, oldConnections)
	s.handshakes.split(min(limit.connections, maxHandshakes), handshakes, oldHandshakes)
	s.ceiling, s.listeners = limit, next
	return next
}

// overLimit says which limit is in the way of a connection.
type overLimit struct {
	limit string // as the configuration names it, or RLIMIT_NOFILE
	state string // how it is reached
	hint  string // what to do; empty: what can be done against any limit
	// retryAfter is when another try is worth it; 0: that is not known.
	retryAfter time.Duration
}

func (e *overLimit) Error() string { return e.limit + ": " + e.state }

// errListenerGone is for a connection that was accepted while reloads took its
// listener away.
var errListenerGone = &overLimit{limit: "the listener is gone"}

// take reserves a slot of p's listener, or says which limit is in the way. h is
// nil for a client whose target is known. yielded have lost theirs: the caller
// breaks them off.
func (s *slots) take(p *listenerSlots, own config.Limits, source netip.Addr, h *handshake) (yielded []*handshake, over *overLimit) {
	key := sourceKey{p, originOf(source)}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if !p.life.is().Takes() {
		return nil, errListenerGone
	}
	for {
		over, victim := s.obstacle(key, own, h != nil, now)
		if over == nil {
			break
		}
		if victim == nil {
			return yielded, over
		}
		s.displace(victim)
		yielded = append(yielded, victim)
	}
	s.connections.take(&p.connections)
	s.source[key]++
	s.pace.count(key, own.MaxRate, now)
	if h != nil {
		s.wait(h)
	}
	return yielded, nil
}

// obstacle says which limit is in the way of a connection, if one is, and who
// gives way to it, if there is somebody.
func (s *slots) obstacle(key sourceKey, own config.Limits, handshake bool, now time.Time) (*overLimit, *handshake) {
	p := key.slots
	switch {
	case own.MaxPerSource > 0 && s.source[key] >= own.MaxPerSource:
		return &overLimit{limit: "limits.max_per_source", state: fmt.Sprintf("%d connections are open from %s", s.source[key], key.text())}, nil
	case !s.pace.allows(key, own.MaxRate, now):
		return &overLimit{
			limit:      "limits.max_rate",
			state:      fmt.Sprintf("more than %d connections a second come from %s", own.MaxRate, key.text()),
			hint:       "raise max_rate of the listener, or find out why so many connections come from there",
			retryAfter: time.Second,
		}, nil
	case own.MaxConnections > 0 && p.connections.taken >= own.MaxConnections:
		return &overLimit{limit: "limits.max_connections", state: fmt.Sprintf("%d connections are open on this listener", p.connections.taken)}, p.waiting.first()
	case !s.connections.free(&p.connections):
		over := s.ceiling.over(s.connections.taken)
		if s.connections.taken < s.connections.limit {
			over.state += ", and the other slots are kept for other listeners"
		}
		return over, s.yields(p, func(p *listenerSlots) *part { return &p.connections })
	case handshake && !s.handshakes.free(&p.handshakes):
		return &overLimit{limit: "handshakes", state: fmt.Sprintf("%d clients are in their handshake", s.handshakes.taken)},
			s.yields(p, func(p *listenerSlots) *part { return &p.handshakes })
	}
	return nil, nil
}

// yields returns who gives way to a newcomer of p: somebody of the same listener, or
// else of the one with most handshakes that has more than its own places. All of them
// count where the newcomer has a place of its own, which a lower limit has left taken.
func (s *slots) yields(p *listenerSlots, in func(*listenerSlots) *part) *handshake {
	if h := p.waiting.first(); h != nil {
		return h
	}
	var most *listenerSlots
	entitled := in(p).taken < in(p).own
	for _, other := range s.listeners {
		beyond := in(other).taken > in(other).own
		if (beyond || entitled) && other.waiting.first() != nil && (most == nil || other.handshakes.taken > most.handshakes.taken) {
			most = other
		}
	}
	if most == nil {
		return nil
	}
	return most.waiting.first()
}

// takeUser counts a connection, which has a slot of p's listener, among those of a user, or
// says which limit is in the way.
func (s *slots) takeUser(p *listenerSlots, own config.Limits, user string) *overLimit {
	key := userKey{p, user}
	s.mu.Lock()
	defer s.mu.Unlock()
	if open := s.user[key]; own.MaxPerUser > 0 && open >= own.MaxPerUser {
		return &overLimit{limit: "limits.max_per_user", state: fmt.Sprintf("%d connections of user %s are open", open, shownUser(user))}
	}
	s.user[key]++
	return nil
}

// giveUser is told of the end of a connection that takeUser has counted.
func (s *slots) giveUser(p *listenerSlots, user string) {
	key := userKey{p, user}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.user[key]--; s.user[key] == 0 {
		delete(s.user, key)
	}
}

// learned says that h's target is known: it does not give way any more. False: it
// has given way already.
func (s *slots) learned(h *handshake) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h.yielded {
		return false
	}
	s.forget(h)
	return true
}

// waits says that h may give way again: what it waits for is up to the client.
func (s *slots) waits(h *handshake) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wait(h)
}

// give gives a connection's slot back; h is its handshake, nil if that is over.
func (s *slots) give(p *listenerSlots, source netip.Addr, h *handshake) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case h == nil:
	case h.yielded:
		return
	case h.place.from != nil:
		s.forget(h)
	}
	s.release(sourceKey{p, originOf(source)})
}

func (s *slots) wait(h *handshake) {
	s.handshakes.take(&h.slots.handshakes)
	h.slots.waiting.add(&h.place, h, 1)
}

func (s *slots) forget(h *handshake) {
	h.slots.waiting.remove(&h.place)
	s.handshakes.give(&h.slots.handshakes)
	if h.memory.from != nil {
		s.memory -= h.memory.weight
		h.slots.holding.remove(&h.memory)
	}
}

// displace takes the places of a handshake for another. The caller breaks it off.
func (s *slots) displace(h *handshake) {
	s.forget(h)
	s.release(sourceKey{h.slots, originOf(h.source)})
	h.yielded = true
}

// maxTLSMemory bounds what all handshakes hold together for TLS, in bytes, their own or the
// ClientHellos of an sni listener. If each holds what is usual, some 26 KiB, maxHandshakes find
// room in it.
const maxTLSMemory = 256 << 20

// hold gives h that much more memory until its handshake is over. Where there is none left
// others give way, of the listener whose handshakes hold most: the oldest of the source
// that holds most there. The caller breaks them off. False: h is one of them.
func (s *slots) hold(h *handshake, bytes int) (yielded []*handshake, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h.yielded {
		return nil, false
	}
	s.memory += bytes
	h.slots.holding.add(&h.memory, h, bytes)
	for s.memory > maxTLSMemory && !h.yielded {
		most := h.slots
		for _, p := range s.listeners {
			if p.holding.weight > most.holding.weight {
				most = p
			}
		}
		victim := most.holding.first()
		s.displace(victim)
		yielded = append(yielded, victim)
	}
	return yielded, !h.yielded
}

func (s *slots) release(key sourceKey) {
	s.connections.give(&key.slots.connections)
	if p := key.slots; p.connections.taken == 0 && p.life.is() == status.Draining {
		p.life.turn(status.Closed)
	}
	if s.source[key]--; s.source[key] == 0 {
		delete(s.source, key)
	}
}

// state is what a listener does.
func (s *slots) state(id string) status.State {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.listeners[id]; p != nil {
		return p.life.is()
	}
	return status.Closed
}

// open is how many connections are open on a listener.
func (s *slots) open(id string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.listeners[id]; p != nil {
		return p.connections.taken
	}
	return 0
}

// note counts a handshake of p that gave way. It returns how many are to be logged
// now, mostly 0.
func (s *slots) note(p *listenerSlots) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return p.note(time.Now())
}
