package route

import (
	"net/netip"
	"strings"
)

var sourcesKey = Key{
	Name:  "sources",
	Check: checkSource,
	In:    func(r *Rule) *[]string { return &r.Sources },
	parse: func(written string) any { return pattern(written).net },
	of: func(c Connection) any {
		if !c.Source.IsValid() {
			return nil
		}
		a := c.Source.Unmap()
		return netip.PrefixFrom(a.WithZone(""), a.BitLen())
	},
	form: func(network any) any {
		n := network.(netip.Prefix)
		return sourceForm{n.Addr().Is4(), n.Bits()}
	},
	as: func(network, form any) (any, bool) {
		n, f := network.(netip.Prefix), form.(sourceForm)
		if n.Addr().Is4() != f.is4 || n.Bits() < f.bits {
			return nil, false
		}
		n, err := n.Addr().Prefix(f.bits)
		return n, err == nil
	},
}

// sourceForm is what networks of one length have in common.
type sourceForm struct {
	is4  bool
	bits int
}

// checkSource returns an empty text, or a sentence for the user.
func checkSource(s string) string {
	if strings.Contains(s, "/") {
		return checkCIDR(s)
	}
	if a, err := netip.ParseAddr(s); err != nil || a.Zone() != "" {
		return `A source is the client's IP address, without a zone, or a CIDR: "10.1.2.3", "10.0.0.0/8", "fd00::/8". Names are not looked up.`
	}
	return ""
}
