// Package cidr reads networks as users write them: in the notation of RFC 4632, section
// 3.1, and RFC 4291, section 2.3, or as one IP address, which is a network of its own, and
// finds addresses in a set of them. It resolves no name.
package cidr

import (
	"net/netip"
	"strings"
)

// Parse returns the network that s is, an IPv4-mapped one as IPv4. problem is empty, or
// what is wrong with s, in a sentence for the user.
func Parse(s string) (network netip.Prefix, problem string) {
	if !strings.Contains(s, "/") {
		a, err := netip.ParseAddr(s)
		if err != nil || a.Zone() != "" {
			return netip.Prefix{}, `Write an IP address without a zone, or a CIDR: "10.1.2.3", "10.0.0.0/8", "fd00::/8". Names are not looked up.`
		}
		return Of(a), ""
	}
	p, err := netip.ParsePrefix(s)
	switch {
	case err != nil:
		return netip.Prefix{}, `A CIDR is an address and the length of its prefix: "10.0.0.0/8", "fd00::/8".`
	case p.Addr().Is4In6() && p.Bits() < 96:
		return netip.Prefix{}, "An IPv4-mapped CIDR has a prefix of at least 96. Write it as IPv4."
	case p.Masked() != p:
		return netip.Prefix{}, `The address of a CIDR has only zeros after its prefix: "10.1.0.0/16", not "10.1.2.3/16".`
	case p.Addr().Is4In6():
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p, ""
}

// Of is the network of one address, without its zone, an IPv4-mapped one as IPv4.
func Of(a netip.Addr) netip.Prefix {
	a = a.Unmap().WithZone("")
	return netip.PrefixFrom(a, a.BitLen())
}
