package targets

import "net/netip"

// denial is a network that clients reach only if allow_targets names it, or a part of it.
type denial struct {
	network netip.Prefix
	name    string // what an address of it is
}

// denials are those that every machine has. Linux takes 0.0.0.0 and :: for loopback when it
// connects. Metadata services give credentials to whoever asks from the machine; each has a
// row of its own, before that of the network around it, which does not open it.
var denials = []denial{
	{netip.MustParsePrefix("0.0.0.0/8"), "an unspecified address"},            // RFC 1122, section 3.2.1.3
	{netip.MustParsePrefix("127.0.0.0/8"), "a loopback address"},              // the same
	{netip.MustParsePrefix("169.254.169.254/32"), metadataName},               // AWS, Azure, Google and most others
	{netip.MustParsePrefix("169.254.0.0/16"), "a link-local address"},         // RFC 3927
	{netip.MustParsePrefix("100.100.100.200/32"), metadataName},               // Alibaba
	{netip.MustParsePrefix("224.0.0.0/4"), "a multicast address"},             // RFC 5771
	{netip.MustParsePrefix("255.255.255.255/32"), "the broadcast address"},    // RFC 919, section 7
	{netip.MustParsePrefix("::/128"), "the unspecified address"},              // RFC 4291, section 2.5.2
	{netip.MustParsePrefix("::1/128"), "the loopback address"},                // RFC 4291, section 2.5.3
	{netip.MustParsePrefix("fe80::/10"), "a link-local address"},              // RFC 4291, section 2.5.6
	{netip.MustParsePrefix("fd00:ec2::254/128"), metadataName},                // AWS
	{netip.MustParsePrefix("fd00:ec2::23/128"), "a service with credentials"}, // AWS, EKS Pod Identity
	{netip.MustParsePrefix("fd20:ce::254/128"), metadataName},                 // Google
	{netip.MustParsePrefix("ff00::/8"), "a multicast address"},                // RFC 4291, section 2.7
}

const (
	metadataName = "a cloud's metadata service"
	ownName      = "an address of this machine"
)

// carrier is a network of IPv6 addresses that carry an IPv4 address, which begins at a bit of
// theirs.
type carrier struct {
	network netip.Prefix
	at      int
}

// carriers are those that a translator, or the kernel, may take for the IPv4 address. 6to4
// (RFC 3056) is none: what is sent to 2002:7f00:1::1 arrives at this machine only if that is
// its own address, and so may the machines behind it be reached by its IPv4 address.
var carriers = []carrier{
	{netip.MustParsePrefix("::/96"), 96},           // IPv4-compatible: RFC 4291, section 2.5.5.1
	{netip.MustParsePrefix("::ffff:0:0:0/96"), 96}, // IPv4-translated: RFC 2765, section 2.1
	{netip.MustParsePrefix("64:ff9b::/96"), 96},    // NAT64: RFC 6052, section 2.1
	// A network's own NAT64 (RFC 8215): which length its prefix has is not to be seen.
	{netip.MustParsePrefix("64:ff9b:1::/48"), 48},
	{netip.MustParsePrefix("64:ff9b:1::/48"), 56},
	{netip.MustParsePrefix("64:ff9b:1::/48"), 64},
	{netip.MustParsePrefix("64:ff9b:1::/48"), 96},
}

// reading is one way to read an address.
type reading struct {
	addr netip.Addr
	at   int // the bit where it begins
}

// bits is the length of the prefix that all addresses share whose reading has the first n bits
// of this one's. Bits 64 to 71 are no part of an IPv4 address (RFC 6052, section 2.2).
func (r reading) bits(n int) int {
	if r.at > 0 && r.at <= 64 && r.at+n > 64 {
		n += 8
	}
	return r.at + n
}

// readings returns the ways to read an address: as it is, and as an IPv4 address that it
// carries.
func readings(a netip.Addr) []reading {
	all := []reading{{a, 0}}
	if a.Is4() || a.IsUnspecified() || a.IsLoopback() {
		return all
	}
	var zero []reading
	for _, c := range carriers {
		if !c.network.Contains(a) {
			continue
		}
		r := reading{c.in(a), c.at}
		if r.addr.As4()[0] == 0 {
			zero = append(zero, r)
		} else {
			all = append(all, r)
		}
	}
	// Where the prefix has another length there are only zeros.
	if len(all) == 1 {
		all = append(all, zero...)
	}
	return all
}

// in is the IPv4 address that a carries.
func (c carrier) in(a netip.Addr) netip.Addr {
	whole := a.As16()
	bytes := whole[c.at/8:]
	if c.at <= 64 {
		bytes = append(whole[c.at/8:8:8], whole[9:]...)
	}
	return netip.AddrFrom4([4]byte(bytes))
}
