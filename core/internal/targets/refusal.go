package targets

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/tunneld/tunneld/internal/cidr"
)

// Refusal is an address that a policy does not allow.
type Refusal struct {
	// Addr is the address, without a zone, an IPv4-mapped one as IPv4.
	Addr   netip.Addr
	policy *Policy
	by     rule
	// form is how the address was read, and network what has it then, for denyTargets and
	// defaults; for these what says what an address of it is, and for unknown err why that
	// is so.
	form    reading
	network netip.Prefix
	what    string
	err     error
}

// rule is what refuses an address.
type rule int

const (
	denyTargets  rule = iota // an element of it has the address
	allowTargets             // none has
	defaults                 // a denial, or this machine's own addresses
	unknown                  // whether it is this machine's own
)

// Error says that clients may not reach the address, and why.
func (r *Refusal) Error() string {
	return fmt.Sprintf("clients of %s may not reach %s: %s", r.policy.o.Listener, r.Addr, r.why())
}

// why is the rule, with what it says of the address.
func (r *Refusal) why() string {
	as := ""
	if r.form.addr != r.Addr {
		as = "as " + r.form.addr.String() + " "
	}
	switch {
	case r.by == allowTargets:
		return r.rule()
	case r.by == denyTargets:
		return fmt.Sprintf("%sin %s of deny_targets", as, r.network)
	case r.by == unknown:
		return fmt.Sprintf("%s%s, which cannot list them (%v)", as, r.rule(), r.err)
	case r.network.IsSingleIP():
		return as + r.what
	}
	return fmt.Sprintf("%s%s (%s)", as, r.what, r.network)
}

// rule is the rule alone.
func (r *Refusal) rule() string {
	switch r.by {
	case denyTargets:
		return "in deny_targets"
	case allowTargets:
		return "not in allow_targets"
	case unknown:
		return "perhaps " + ownName
	}
	return r.what
}

// maxTold bounds the addresses that a text lists: their number is the name server's.
const maxTold = 8

// Texts are what a target that was refused comes with.
type Texts struct{ Message, Hint string }

// Full tells everything of a target, an IP address or a name, whose addresses were refused;
// there is at least one. It is for the log, and for clients that have named the address.
func Full(host string, all []*Refusal) Texts {
	if len(all) == 1 && all[0].Addr.String() == host {
		return Texts{all[0].Error(), hint(all)}
	}
	return Texts{fmt.Sprintf("clients of %s may not reach %s at %s", all[0].policy.o.Listener, host, List(all)), hint(all)}
}

// Brief is Full for a client that has named a name, without its addresses. What a client may
// not reach it need not learn either: it could ask for one name after the other, and so read
// the addresses of this machine and of its network from a name server that it cannot ask
// itself. An address that was dialed is different, and is told if that fails.
func Brief(host string, all []*Refusal) Texts {
	var rules []string
	for _, r := range all {
		if rule := r.rule(); !slices.Contains(rules, rule) {
			rules = append(rules, rule)
		}
	}
	listener := all[0].policy.o.Listener
	return Texts{
		fmt.Sprintf("clients of %s may not reach %s: %s", listener, host, strings.Join(rules, "; ")),
		"whoever runs the proxy finds in its log what to write in " + listener + " to allow it",
	}
}

// List has each address with what refuses it.
func List(all []*Refusal) string {
	var each []string
	for _, r := range all[:min(len(all), maxTold)] {
		each = append(each, fmt.Sprintf("%s, %s", r.Addr, r.why()))
	}
	if more := len(all) - maxTold; more > 0 {
		each = append(each, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(each, "; ")
}

// hint says what would allow the addresses that the same rule refuses as the first one.
func hint(all []*Refusal) string {
	first := all[0]
	var elements []string
	for _, r := range all {
		if r.by == first.by && len(elements) < maxTold {
			elements = append(elements, fmt.Sprintf("%q", cidr.Of(r.Addr)))
		}
	}
	o, line := first.policy.o, strings.Join(elements, ", ")
	switch {
	case first.by == denyTargets:
		return fmt.Sprintf("to allow it, take %s out of deny_targets in %s, or write smaller networks there", first.network, o.Listener)
	case first.by == unknown:
		return fmt.Sprintf("let the daemon list them, under systemd by AF_NETLINK in RestrictAddressFamilies, or name the very address by %s in allow_targets in %s", line, o.Listener)
	case len(o.Allow) > 0:
		return fmt.Sprintf("to allow it, add %s to allow_targets in %s", line, o.Listener)
	}
	return fmt.Sprintf(`to allow it, write allow_targets = [%s] in %s, and with it "0.0.0.0/0" and "::/0" if all else is to stay allowed`, line, o.Listener)
}
