package engine

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tunneld/tunneld/core/internal/config"
)

// TestMaxRate: a source makes as many connections at once as it may in a second, and then
// one at a time as they come back; what is refused costs it none; others are not concerned.
func TestMaxRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSlots()
		listeners := s.split(ceiling{connections: 1000, configured: true}, []string{"a", "b"})
		own := config.Limits{MaxRate: 4}
		// takes is how many of ten connections of a source are let in.
		takes := func(id, source string) (n int) {
			for range 10 {
				_, over := s.take(listeners[id], own, netip.MustParseAddr(source), nil)
				switch {
				case over == nil:
					n++
				case over.limit != "limits.max_rate" || over.retryAfter == 0 || !strings.Contains(over.Error(), fmt.Sprintf("more than %d connections a second", own.MaxRate)):
					t.Fatal(over)
				}
			}
			return n
		}
		expect := func(what string, got, want int) {
			t.Helper()
			if got != want {
				t.Errorf("%s: %d were let in, want %d", what, got, want)
			}
		}
		const one, other = "192.0.2.1", "192.0.2.2"
		expect("at once", takes("a", one), 4)
		expect("another source", takes("a", other), 4)
		expect("another listener", takes("b", one), 4)
		expect("an IPv6 network", takes("a", "2001:db8::1"), 4)
		expect("the same network", takes("a", "2001:db8::2"), 0)
		expect("another network", takes("a", "2001:db8:0:1::1"), 4)
		time.Sleep(250 * time.Millisecond)
		expect("after a quarter of a second", takes("a", one), 1)
		time.Sleep(500 * time.Millisecond)
		expect("after half a second", takes("a", one), 2)
		time.Sleep(time.Hour)
		expect("after an hour", takes("a", one), 4)

		own.MaxRate = 2
		time.Sleep(time.Second)
		expect("after a reload to less", takes("a", one), 2)
		own.MaxRate = 8
		time.Sleep(time.Second)
		expect("after a reload to more", takes("a", one), 2)
		time.Sleep(time.Second)
		expect("a second later", takes("a", one), 8)
		own.MaxRate = 0
		expect("without a limit", takes("a", one), 10)
	})
}

// TestMaxRateIsHeld: however the connections come, no second has more than its share and
// what was saved before.
func TestMaxRateIsHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSlots()
		a := s.split(ceiling{connections: 1 << 20, configured: true}, []string{"a"})["a"]
		own, source, began := config.Limits{MaxRate: 10}, netip.MustParseAddr("192.0.2.1"), time.Now()
		taken := 0
		for range 10_000 {
			if _, over := s.take(a, own, source, nil); over == nil {
				taken++
			}
			if most := 10 + int(10*time.Since(began)/time.Second); taken > most {
				t.Fatalf("%d after %s, want at most %d", taken, time.Since(began), most)
			}
			time.Sleep(7 * time.Millisecond)
		}
		if least := int(10 * time.Since(began) / time.Second); taken < least {
			t.Errorf("%d after %s, want at least %d", taken, time.Since(began), least)
		}
	})
}

// TestMaxRateForgets: sources are remembered for two seconds at most.
func TestMaxRateForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSlots()
		a := s.split(ceiling{connections: 1 << 20, configured: true}, []string{"a"})["a"]
		most := 0
		for i := range 10_000 {
			source := netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})
			if _, over := s.take(a, config.Limits{MaxRate: 1}, source, nil); over != nil {
				t.Fatal(over)
			}
			s.give(a, source, nil)
			most = max(most, len(s.pace.recent)+len(s.pace.before))
			time.Sleep(10 * time.Millisecond)
		}
		if most > 200 {
			t.Errorf("%d sources were remembered at a time, of 100 a second", most)
		}
	})
}
