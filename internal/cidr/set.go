package cidr

import (
	"net/netip"
	"slices"
)

// Set is the addresses of any number of networks. The zero value has none. It never
// changes: any number of goroutines may use it at once.
type Set struct{ ranges []span }

// span is from one address to another of its family, both included. Those of a Set ascend,
// IPv4 first, and neither overlap nor meet.
type span struct{ from, to netip.Addr }

// NewSet makes a set of networks as Parse returns them.
func NewSet(networks []netip.Prefix) Set {
	var s Set
	networks = slices.Clone(networks)
	slices.SortFunc(networks, netip.Prefix.Compare)
	for _, p := range networks {
		next := span{p.Addr(), last(p)}
		if n := len(s.ranges); n > 0 && s.ranges[n-1].meets(next.from) {
			if before := &s.ranges[n-1]; before.to.Less(next.to) {
				before.to = next.to
			}
			continue
		}
		s.ranges = append(s.ranges, next)
	}
	return s
}

// meets says whether an address, which is none before the range, is in it or follows it.
func (r span) meets(a netip.Addr) bool {
	return a.BitLen() == r.to.BitLen() && (a.Compare(r.to) <= 0 || a == r.to.Next())
}

// IsEmpty says whether the set has no address.
func (s Set) IsEmpty() bool { return len(s.ranges) == 0 }

// Contains says whether an address is in the set: an IPv4-mapped one as IPv4, and whatever
// its zone. It takes the logarithm of the number of networks, and no memory.
func (s Set) Contains(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	return s.covers(a, a)
}

// Covers says whether all of a network as Parse returns it is in the set.
func (s Set) Covers(p netip.Prefix) bool { return s.covers(p.Addr(), last(p)) }

func (s Set) covers(from, to netip.Addr) bool {
	i, _ := slices.BinarySearchFunc(s.ranges, from, func(r span, a netip.Addr) int { return r.to.Compare(a) })
	return i < len(s.ranges) && s.ranges[i].from.Compare(from) <= 0 && to.Compare(s.ranges[i].to) <= 0
}

// last is the last address of a network.
func last(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for bit := p.Bits(); bit < 8*len(b); bit++ {
		b[bit/8] |= 0x80 >> (bit % 8)
	}
	a, _ := netip.AddrFromSlice(b) // it has the length of one
	return a
}
