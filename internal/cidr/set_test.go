package cidr

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
)

func setOf(t testing.TB, written ...string) Set {
	t.Helper()
	var networks []netip.Prefix
	for _, w := range written {
		p, problem := Parse(w)
		if problem != "" {
			t.Fatalf("%q: %s", w, problem)
		}
		networks = append(networks, p)
	}
	return NewSet(networks)
}

func TestSetContains(t *testing.T) {
	s := setOf(t, "10.0.0.0/8", "192.0.2.7", "::ffff:198.51.100.0/120", "fd00::/8", "2001:db8::1", "10.1.0.0/16")
	for a, want := range map[string]bool{
		"10.0.0.0":              true,
		"10.1.2.3":              true,
		"10.255.255.255":        true,
		"9.255.255.255":         false,
		"11.0.0.0":              false,
		"192.0.2.7":             true,
		"192.0.2.6":             false,
		"192.0.2.8":             false,
		"198.51.100.255":        true,
		"::ffff:10.1.2.3":       true,
		"::ffff:11.1.2.3":       false,
		"::10.1.2.3":            false,
		"fdff:ffff::1":          true,
		"fc00::1":               false,
		"fe80::1%eth0":          false,
		"fd00::1%eth0":          true,
		"2001:db8::1":           true,
		"2001:db8::2":           false,
		"::":                    false,
		"0.0.0.0":               false,
		"255.255.255.255":       false,
		"ffff:ffff:ffff:ffff::": false,
	} {
		if got := s.Contains(netip.MustParseAddr(a)); got != want {
			t.Errorf("%s: %v, want %v", a, got, want)
		}
	}
	if s.Contains(netip.Addr{}) || s.IsEmpty() {
		t.Errorf("the set has no address: %v, or no one's: %v", s.IsEmpty(), s.Contains(netip.Addr{}))
	}
	var none Set
	if none.Contains(netip.MustParseAddr("10.1.2.3")) || !none.IsEmpty() {
		t.Error("the zero value has an address")
	}
}

func TestSetCovers(t *testing.T) {
	for _, tt := range []struct {
		networks []string
		whole    string
		want     bool
	}{
		{[]string{"0.0.0.0/0"}, "0.0.0.0/0", true},
		{[]string{"128.0.0.0/1", "0.0.0.0/1"}, "0.0.0.0/0", true},
		{[]string{"0.0.0.0/1", "128.0.0.0/2", "192.0.0.0/2"}, "0.0.0.0/0", true},
		{[]string{"0.0.0.0/1", "128.0.0.0/2", "224.0.0.0/3"}, "0.0.0.0/0", false},
		{[]string{"0.0.0.0/1", "10.0.0.0/8", "128.0.0.0/1"}, "0.0.0.0/0", true},
		{[]string{"0.0.0.0/1"}, "0.0.0.0/0", false},
		{[]string{"0.0.0.0/0"}, "::/0", false},
		{[]string{"::/0"}, "0.0.0.0/0", false},
		{[]string{"::/1", "8000::/1"}, "::/0", true},
		{[]string{"::/0"}, "2000::/3", true},
		{[]string{"2000::/4", "3000::/4"}, "2000::/3", true},
		{[]string{"255.255.255.255", "::"}, "255.255.255.255", true},
		{nil, "0.0.0.0/0", false},
	} {
		p, _ := Parse(tt.whole)
		if got := setOf(t, tt.networks...).Covers(p); got != tt.want {
			t.Errorf("%s of %s: %v, want %v", tt.whole, tt.networks, got, tt.want)
		}
	}
}

// TestSetLikeScan compares sets with a look at each of their networks.
func TestSetLikeScan(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	// Few addresses, so that networks overlap and meet, at both ends of a family.
	some := func() netip.Addr {
		b := []byte{0, 0, 0, byte(rnd.IntN(32))}
		if rnd.IntN(2) == 0 {
			b = []byte{255, 255, 255, byte(224 + rnd.IntN(32))}
		}
		if rnd.IntN(2) == 0 {
			b = append(slices.Repeat(b[:1], 12), b...)
		}
		a, _ := netip.AddrFromSlice(b)
		return a
	}
	for range 2000 {
		var networks []netip.Prefix
		for range rnd.IntN(12) {
			a := some()
			p, err := a.Prefix(a.BitLen() - rnd.IntN(7))
			if err != nil {
				t.Fatal(err)
			}
			networks = append(networks, p)
		}
		set := NewSet(networks)
		for range 40 {
			a := some()
			want := slices.ContainsFunc(networks, func(p netip.Prefix) bool { return p.Contains(a) })
			if got := set.Contains(a); got != want {
				t.Fatalf("%s in %s: %v, want %v", a, networks, got, want)
			}
		}
		for i := 1; i < len(set.ranges); i++ {
			if set.ranges[i-1].meets(set.ranges[i].from) || set.ranges[i].from.Less(set.ranges[i-1].to) {
				t.Fatalf("%s: ranges %v", networks, set.ranges)
			}
		}
	}
}

// BenchmarkSetContains looks an address up that is in none of the networks, and scans them
// for comparison.
func BenchmarkSetContains(b *testing.B) {
	for _, n := range []int{1, 10, 500, 10_000} {
		var networks []netip.Prefix
		for i := range n {
			a := netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, uint32(0x0a000000+512*i))))
			networks = append(networks, netip.PrefixFrom(a, 24))
		}
		set, stranger := NewSet(networks), netip.MustParseAddr("10.0.1.1")
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if set.Contains(stranger) {
					b.Fatal("it is in the set")
				}
			}
		})
		b.Run(fmt.Sprint(n, " scanned"), func(b *testing.B) {
			for b.Loop() {
				if slices.ContainsFunc(networks, func(p netip.Prefix) bool { return p.Contains(stranger) }) {
					b.Fatal("it is in a network")
				}
			}
		})
	}
}
