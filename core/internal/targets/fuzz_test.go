package targets

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// pattern is a set of addresses: by a bit, "0", "1" or "*".
type pattern string

func patternOf(n netip.Prefix) pattern {
	var b strings.Builder
	for i, byte := range n.Addr().AsSlice() {
		for bit := range 8 {
			switch {
			case i*8+bit >= n.Bits():
				b.WriteByte('*')
			case byte&(0x80>>bit) != 0:
				b.WriteByte('1')
			default:
				b.WriteByte('0')
			}
		}
	}
	return pattern(b.String())
}

func (p pattern) has(q pattern) bool {
	if len(p) != len(q) {
		return false
	}
	for i := range p {
		if p[i] != '*' && p[i] != q[i] {
			return false
		}
	}
	return true
}

// within are the addresses of a carrier that carry one of p, which is IPv4's.
func (p pattern) within(c carrier) pattern {
	b := []byte(patternOf(c.network))
	at := c.at
	for i := range p {
		if c.at <= 64 && at == 64 {
			at += 8
		}
		if p[i] != '*' {
			b[at] = p[i]
		}
		at++
	}
	return pattern(b)
}

// naive is what Check's documentation says, with sets of addresses: who is in a set that is
// denied by default needs an element of allow all of which is in that set.
func naive(a netip.Addr, deny, allow, own []netip.Prefix) bool {
	a = a.Unmap().WithZone("")
	bits := patternOf(netip.PrefixFrom(a, a.BitLen()))
	in := func(set pattern) func(netip.Prefix) bool {
		return func(n netip.Prefix) bool { return patternOf(n).has(bits) && set.has(patternOf(n)) }
	}
	everything := pattern(strings.Repeat("*", len(bits)))
	ok := len(allow) == 0 || slices.ContainsFunc(allow, in(everything))
	look := func(as func(netip.Prefix) pattern) {
		for _, n := range deny {
			ok = ok && !as(n).has(bits)
		}
		loopback := false
		for _, d := range denials {
			if set := as(d.network); set.has(bits) {
				loopback = loopback || strings.Contains(d.name, "loopback") || strings.Contains(d.name, "unspecified")
				ok = ok && slices.ContainsFunc(allow, in(set))
			}
		}
		for _, n := range own {
			if set := as(n); !loopback && set.has(bits) {
				ok = ok && slices.ContainsFunc(allow, in(set))
			}
		}
	}
	look(patternOf)
	if a == netip.IPv6Unspecified() || a == netip.IPv6Loopback() {
		return ok
	}
	carried := func(n string, c carrier) pattern {
		network := netip.MustParsePrefix(n)
		if !network.Addr().Is4() {
			return ""
		}
		return patternOf(network).within(c)
	}
	some := slices.ContainsFunc(carriers, func(c carrier) bool {
		return carried("0.0.0.0/0", c).has(bits) && !carried("0.0.0.0/8", c).has(bits)
	})
	for _, c := range carriers {
		if !some || !carried("0.0.0.0/8", c).has(bits) {
			look(func(n netip.Prefix) pattern { return carried(n.String(), c) })
		}
	}
	return ok
}

// palette are addresses of which the fuzzed ones differ in a few bits.
var palette = []string{
	"0.0.0.0", "127.0.0.1", "169.254.169.254", "169.254.7.7", "224.0.0.1", "255.255.255.255", "10.1.2.3", "192.168.77.9", "8.8.8.8", "100.100.100.200",
	"::", "::1", "fe80::1", "fd00:ec2::254", "ff02::1", "2001:db8::3", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:0:10.1.2.3",
	"64:ff9b::127.0.0.1", "64:ff9b::10.1.2.3", "64:ff9b:1::127.0.0.1", "64:ff9b:1:7f00:0:100::", "64:ff9b:1:7f:0:1::", "64:ff9b:1:0:7f:0:100::", "64:ff9b:1:a01:2:300::", "2002:7f00:1::1",
}

// address takes two bytes: which, and which of its bits is turned, if any.
func address(which, turned byte) netip.Addr {
	a := netip.MustParseAddr(palette[int(which)%len(palette)])
	b := a.AsSlice()
	if i := int(turned); i < a.BitLen() {
		b[i/8] ^= 0x80 >> (i % 8)
	}
	a, _ = netip.AddrFromSlice(b)
	return a
}

// networks takes three bytes each: an address, and the length.
func networksOf(b []byte) (all []netip.Prefix) {
	for ; len(b) >= 3; b = b[3:] {
		a := address(b[0], b[1]).Unmap()
		all = append(all, netip.PrefixFrom(a, int(b[2])%(a.BitLen()+1)).Masked())
	}
	return all
}

// FuzzPolicy compares Check with naive.
func FuzzPolicy(f *testing.F) {
	for which := range palette {
		f.Add(byte(which), byte(255), []byte{}, []byte{})
		f.Add(byte(which), byte(255), []byte{}, []byte{byte(which), 255, 128, 0, 255, 0})
		f.Add(byte(which), byte(255), []byte{byte(which), 255, 24}, []byte{1, 255, 8})
	}
	f.Fuzz(func(t *testing.T, which, turned byte, deny, allow []byte) {
		a, denied, allowed := address(which, turned), networksOf(deny), networksOf(allow)
		p := New(Options{Deny: denied, Allow: allowed, Own: ownAre(t, machine)})
		err := p.Check(a)
		if want := naive(a, denied, allowed, []netip.Prefix{
			netip.MustParsePrefix("10.1.2.3/32"), netip.MustParsePrefix("2001:db8::3/128"), netip.MustParsePrefix("fe80::3/128"), netip.MustParsePrefix("169.254.7.7/32"), netip.MustParsePrefix("192.168.77.1/32"), netip.MustParsePrefix("192.168.77.0/24"),
		}); (err == nil) != want {
			t.Errorf("%s with deny %s and allow %s: %v, want allowed %v", a, denied, allowed, err, want)
		}
	})
}
