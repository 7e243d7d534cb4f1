package engine

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tunneld/tunneld/core/internal/config"
)

// TestPool: whatever the listeners take and give back, each gets its own places,
// and all together get no more than there are.
func TestPool(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		limit, n := 1+rnd.IntN(60), 1+rnd.IntN(6)
		var parts []*part
		for range n {
			parts = append(parts, &part{})
		}
		var p pool
		p.split(limit, parts, nil)
		leaving := 0
		for range 300 {
			s := parts[rnd.IntN(n)]
			switch rnd.IntN(5) {
			case 0, 1, 2:
				free := p.free(s)
				if s.taken < limit/4/max(1, n-leaving) && s.own > 0 && p.taken < p.limit && !free {
					t.Fatalf("no place of its own: %+v in %+v", s, p)
				}
				if free {
					p.take(s)
				}
			case 3:
				if s.taken > 0 {
					p.give(s)
				}
			default: // a reload
				leaving = rnd.IntN(n)
				limit = 1 + rnd.IntN(60)
				p.split(limit, parts[leaving:], parts[:leaving])
			}
			taken, beyond, own := 0, 0, 0
			for _, s := range parts {
				taken += s.taken
				beyond += max(0, s.taken-s.own)
				own += s.own
			}
			if p.taken != taken || p.used != beyond || p.common+own != limit || own > limit/4 {
				t.Fatalf("%+v of limit %d: %d taken, %d of them beyond their own %d", p, limit, taken, beyond, own)
			}
		}
	}
}

// TestOnlyOwnPlacesAreLeft: one listener takes all that it can get, and each of
// the others has its part of a quarter.
func TestOnlyOwnPlacesAreLeft(t *testing.T) {
	s := newSlots()
	listeners := s.split(ceiling{connections: 80, configured: true}, []string{"a", "b", "c", "d"})
	source := netip.MustParseAddr("192.0.2.1")
	take := func(id string) (n int) {
		for {
			if _, over := s.take(listeners[id], config.Limits{}, source, nil); over != nil {
				if over.limit != "daemon.max_connections" || s.connections.taken < 80 && !strings.Contains(over.Error(), "other listeners") {
					t.Errorf("%v with %d taken", over, s.connections.taken)
				}
				return n
			}
			n++
		}
	}
	for id, want := range map[string]int{"a": 65} {
		if n := take(id); n != want {
			t.Errorf("%s has %d places, want %d", id, n, want)
		}
	}
	for _, id := range []string{"b", "c", "d"} {
		if n := take(id); n != 5 {
			t.Errorf("%s has %d places, want 5", id, n)
		}
	}
	// The connections of a listener that is gone keep theirs, and nobody is lost.
	listeners = s.split(ceiling{connections: 80, configured: true}, []string{"b"})
	if n := s.open("a"); n != 65 {
		t.Errorf("%d are open", n)
	}
	gone := s.listeners["a"]
	for range 65 {
		s.give(gone, source, nil)
	}
	if n := take("b"); s.connections.taken != 80 || n != 65 {
		t.Errorf("%d more places, %+v", n, s.connections)
	}
	s.split(ceiling{connections: 80, configured: true}, []string{"b"})
	if _, over := s.take(gone, config.Limits{}, source, nil); over != errListenerGone {
		t.Errorf("a connection of a listener that is gone: %v", over)
	}
}

// TestWhoGivesWay compares the queue of handshakes with a list.
func TestWhoGivesWay(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	var w waiting
	var all []*handshake // in order of age
	number := uint64(0)
	for range 20_000 {
		switch n := rnd.IntN(10); {
		case n < 5 || len(all) == 0:
			number++
			text := fmt.Sprintf("192.0.2.%d", rnd.IntN(7))
			if n%2 == 0 {
				text = fmt.Sprintf("2001:db8:0:%d::%d", rnd.IntN(3), rnd.IntN(1000))
			}
			h := &handshake{source: netip.MustParseAddr(text), number: number}
			w.add(&h.place, h, 1)
			all = append(all, h)
		case n < 8:
			i := rnd.IntN(len(all))
			w.remove(&all[i].place)
			all = slices.Delete(all, i, i+1)
		default:
			count := map[string]int{}
			key := func(h *handshake) string {
				if h.source.Is4() {
					return h.source.String()
				}
				text := h.source.StringExpanded()
				return text[:len("2001:0db8:0000:0000")]
			}
			var want *handshake
			for _, h := range all {
				count[key(h)]++
			}
			for _, h := range all {
				if want == nil || count[key(h)] > count[key(want)] {
					want = h
				}
			}
			if got := w.first(); got != want {
				t.Fatalf("%+v gives way, want %+v", got, want)
			}
			w.remove(&want.place)
			all = slices.DeleteFunc(all, func(h *handshake) bool { return h == want })
		}
		if len(w.most) != len(w.origins) || (len(all) == 0) != (w.first() == nil) {
			t.Fatalf("%d of %d sources, %d handshakes", len(w.most), len(w.origins), len(all))
		}
	}
}

// TestNewcomerGetsIn: a handshake makes room for a newcomer, of the same listener
// before another's, and for each limit that it can make room in; tunnels do not.
func TestNewcomerGetsIn(t *testing.T) {
	one, two := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	number := uint64(0)
	shake := func(p *listenerSlots, source netip.Addr) *handshake {
		number++
		return &handshake{slots: p, source: source, number: number}
	}
	for name, tt := range map[string]struct {
		limit int
		own   config.Limits
	}{
		"daemon.max_connections": {12, config.Limits{}},
		"limits.max_connections": {1000, config.Limits{MaxConnections: 6}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSlots()
			listeners := s.split(ceiling{connections: tt.limit, configured: true}, []string{"a", "b"})
			a := listeners["a"]
			// A tunnel of one, a handshake of two, and then handshakes of one.
			tunnel := shake(a, one)
			if _, over := s.take(a, tt.own, one, tunnel); over != nil || !s.learned(tunnel) {
				t.Fatal(over)
			}
			other := shake(a, two)
			if _, over := s.take(a, tt.own, two, other); over != nil {
				t.Fatal(over)
			}
			var waiting []*handshake
			for range 100 {
				h := shake(a, one)
				yielded, over := s.take(a, tt.own, one, h)
				if over != nil {
					t.Fatal(over)
				}
				waiting = append(waiting, h)
				for _, y := range yielded {
					if y != waiting[0] || s.learned(y) {
						t.Fatalf("%+v gives way, the oldest is %+v", y, waiting[0])
					}
					waiting = waiting[1:]
					s.give(a, one, y) // its end changes nothing
				}
			}
			if open := s.open("a"); open != len(waiting)+2 || a.handshakes.taken != len(waiting)+1 || other.yielded {
				t.Fatalf("%d open, %d in their handshake, %d of one", open, a.handshakes.taken, len(waiting))
			}
			if tt.own.MaxConnections > 0 {
				return
			}
			// The other listener has its own place, and then the first one's common
			// ones, also for clients that have no handshake.
			for i := range 10 {
				yielded, over := s.take(listeners["b"], tt.own, two, nil)
				if over != nil || len(yielded) != 0 && yielded[0] != waiting[0] {
					t.Fatalf("%d: %v, %v", i, yielded, over)
				}
				waiting = waiting[len(yielded):]
				if len(waiting) == 1 {
					break // as many as there are of two
				}
			}
			if own := a.connections.own; own == 0 || a.connections.taken < own {
				t.Errorf("%+v", a.connections)
			}
		})
	}
}

// TestOwnPlacesStay: a newcomer that gets no place costs another listener none of its
// own, however full everything is.
func TestOwnPlacesStay(t *testing.T) {
	s := newSlots()
	listeners := s.split(ceiling{connections: 16, configured: true}, []string{"a", "b"})
	a, b := listeners["a"], listeners["b"]
	source := netip.MustParseAddr("192.0.2.1")
	for number := range uint64(2) { // as many as are its own
		if _, over := s.take(b, config.Limits{}, source, &handshake{slots: b, source: source, number: number}); over != nil {
			t.Fatal(over)
		}
	}
	for range 14 {
		if yielded, over := s.take(a, config.Limits{}, source, nil); over != nil || len(yielded) > 0 {
			t.Fatal(yielded, over)
		}
	}
	if yielded, over := s.take(a, config.Limits{}, source, nil); over == nil || len(yielded) > 0 || b.connections.taken != 2 {
		t.Errorf("%d gave way for nothing, %v", len(yielded), over)
	}
}

// TestPerSourceLimitRefusesTheNewcomer: a client beyond the limit of its source is
// refused, and displaces nobody.
func TestPerSourceLimitRefusesTheNewcomer(t *testing.T) {
	s := newSlots()
	a := s.split(ceiling{connections: 100, configured: true}, []string{"a"})["a"]
	source := netip.MustParseAddr("192.0.2.1")
	own := config.Limits{MaxPerSource: 1}
	if _, over := s.take(a, own, source, &handshake{slots: a, source: source, number: 1}); over != nil {
		t.Fatal(over)
	}
	yielded, over := s.take(a, own, source, &handshake{slots: a, source: source, number: 2})
	if over == nil || over.limit != "limits.max_per_source" || len(yielded) > 0 {
		t.Errorf("%v, %v", yielded, over)
	}
}

// TestYieldedIsLoggedOnceAMinute: the line counts all that have given way since the
// last.
func TestYieldedIsLoggedOnceAMinute(t *testing.T) {
	var p listenerSlots
	now := time.Now()
	var told []int
	for i := range 300 {
		if n := p.note(now.Add(time.Duration(i) * time.Second)); n > 0 {
			told = append(told, n)
		}
	}
	if want := []int{1, 60, 60, 60, 60}; !slices.Equal(told, want) {
		t.Errorf("told of %d, want %d", told, want)
	}
}

// TestIdentify: a client that has yet to say where it comes from is not among those of any
// source, and from then on it is among its own.
func TestIdentify(t *testing.T) {
	s := newSlots()
	a := s.split(ceiling{connections: 100, configured: true}, []string{"a"})["a"]
	one, two := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
	own := config.Limits{MaxPerSource: 1, MaxRate: 2}
	var all []*handshake
	for number := range uint64(4) {
		h := &handshake{slots: a, number: number}
		if yielded, over := s.take(a, own, netip.Addr{}, h); over != nil || len(yielded) > 0 {
			t.Fatal(yielded, over)
		}
		all = append(all, h)
	}
	identify := func(h *handshake, source netip.Addr, limit string) {
		t.Helper()
		over, ok := s.identify(h, own, source)
		if !ok || (over == nil) != (limit == "") || over != nil && over.limit != limit {
			t.Fatalf("%v, %v, want %q", over, ok, limit)
		}
	}
	identify(all[0], one, "")
	identify(all[1], two, "")
	identify(all[2], one, "limits.max_per_source")
	if first := a.waiting.first(); first != all[2] {
		t.Errorf("%+v gives way first, and not the oldest of those without a source", first)
	}
	s.give(a, one, all[2]) // whose slot was that of no source
	s.give(a, one, all[0])
	identify(all[3], one, "")
	if !s.learned(all[3]) {
		t.Error("it has given way")
	}
	s.give(a, one, nil)
	h := &handshake{slots: a, number: 9}
	if _, over := s.take(a, own, netip.Addr{}, h); over != nil {
		t.Fatal(over)
	}
	identify(h, one, "limits.max_rate")
	s.displace(h)
	if over, ok := s.identify(h, own, two); ok || over != nil {
		t.Errorf("one that has given way: %v, %v", over, ok)
	}
	s.give(a, two, h)
	s.give(a, two, all[1])
	if s.connections.taken != 0 || s.handshakes.taken != 0 || len(s.source) != 0 || len(a.waiting.origins) != 0 {
		t.Errorf("%d connections, %d handshakes and the sources %v are left", s.connections.taken, s.handshakes.taken, s.source)
	}
}
