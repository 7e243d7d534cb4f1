// Package targets decides which addresses the clients of a listener may have dialed, where
// they name the target themselves. Whoever dials asks it of each address just before: what a
// name was resolved to earlier says nothing. It resolves and dials nothing.
package targets

import (
	"net/netip"
	"slices"
)

// Options are what a listener's block says.
type Options struct {
	// Listener is the block as a reference has it ("listener.socks5.apps"), for texts.
	Listener string
	// Deny and Allow are the networks of deny_targets and allow_targets, IPv4-mapped ones
	// as IPv4.
	Deny, Allow []netip.Prefix
	// Own are this machine's addresses.
	Own *Own
}

// Policy is what the addresses may be. It never changes, and is safe for concurrent use.
// See New.
type Policy struct{ o Options }

// New returns the policy of a listener.
func New(o Options) *Policy { return &Policy{o} }

// Check returns nil, or a *Refusal: what Deny has is refused, and then what Allow does not
// have, unless that is empty, and last what is denied by default. That is opened only by an
// element of Allow that lies within the denied network: one that is meant for a wider network,
// or for everything, does not open this machine. An IPv4 address that an IPv6 one carries is
// denied as it is itself, but Allow has only what it names. Zones do not matter.
func (p *Policy) Check(a netip.Addr) error {
	a = a.Unmap().WithZone("")
	forms := readings(a)
	for _, f := range forms {
		if i := slices.IndexFunc(p.o.Deny, func(n netip.Prefix) bool { return n.Contains(f.addr) }); i >= 0 {
			return &Refusal{Addr: a, policy: p, form: f, by: denyTargets, network: p.o.Deny[i]}
		}
	}
	named := p.named(a)
	if len(p.o.Allow) > 0 && named < 0 {
		return &Refusal{Addr: a, policy: p, by: allowTargets}
	}
	for _, f := range forms {
		for _, d := range denials {
			// Of two networks that both have an address, the longer prefix lies within.
			if d.network.Contains(f.addr) && named < f.bits(d.network.Bits()) {
				return &Refusal{Addr: a, policy: p, form: f, by: defaults, network: d.network, what: d.name}
			}
		}
		// Who allows a loopback network means this machine.
		if isLoopback(f.addr) || named >= f.bits(f.addr.BitLen()) {
			continue
		}
		own, err := p.o.Own.network(f.addr)
		switch {
		case err != nil:
			return &Refusal{Addr: a, policy: p, form: f, by: unknown, err: err}
		case own.IsValid() && named < f.bits(own.Bits()):
			return &Refusal{Addr: a, policy: p, form: f, by: defaults, network: own, what: ownName}
		}
	}
	return nil
}

// isLoopback says whether Linux takes an address for loopback: an unspecified one, too.
func isLoopback(a netip.Addr) bool {
	return a.IsLoopback() || a.IsUnspecified() || a.Is4() && a.As4()[0] == 0
}

// named is the length of the longest element of Allow that has the address; -1: none has.
func (p *Policy) named(a netip.Addr) int {
	longest := -1
	for _, n := range p.o.Allow {
		if n.Contains(a) {
			longest = max(longest, n.Bits())
		}
	}
	return longest
}
