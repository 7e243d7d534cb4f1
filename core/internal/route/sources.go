package route

import (
	"net/netip"

	"github.com/tunneld/tunneld/internal/cidr"
)

var sourcesKey = Key{
	Name: "sources",
	Check: func(written string) string {
		_, problem := cidr.Parse(written)
		return problem
	},
	In: func(r *Rule) *[]string { return &r.Sources },
	parse: func(written string) any {
		network, _ := cidr.Parse(written) // it was checked
		return network
	},
	of: func(c Connection) any {
		if !c.Source.IsValid() {
			return nil
		}
		return cidr.Of(c.Source)
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
