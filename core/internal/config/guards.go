package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/tunneld/tunneld/core/internal/listen"
	"github.com/tunneld/tunneld/internal/cidr"
)

// OpenSummary is of a listener that others than this machine's users reach, and that does
// not say who may use it.
const OpenSummary = "The listener can be reached from beyond this machine"

// guard is a way for a listener to say who may use it.
type guard struct {
	written string // how, for messages
	has     func(Listener) bool
	can     func(listen.Kind) bool // nil: listeners of every kind
}

// guards are all ways, in the order of messages.
var guards = []guard{
	{`allow = ["10.0.0.0/8"]`, func(l Listener) bool { return !l.Allow.IsEmpty() && !letsEverybodyIn(l.Allow) }, nil},
	{`auth { … }`, func(l Listener) bool { return !l.Auth.IsZero() }, func(k listen.Kind) bool { return k.Passwords }},
}

// Exposed returns what to do about a listener that others than this machine's users reach;
// empty: nothing, it says who may use it.
func (l Listener) Exposed() string {
	if l.Open || slices.ContainsFunc(guards, func(g guard) bool { return g.has(l) }) {
		return ""
	}
	kind, _ := listen.FindKind(l.Kind) // one that is not there was reported
	var ways []string
	for _, g := range guards {
		if g.can == nil || g.can(kind) {
			ways = append(ways, g.written)
		}
	}
	detail := fmt.Sprintf("Whoever reaches it can use its upstreams. Listen on 127.0.0.1, [::1] or localhost, or say who may come in: %s. If everybody may, write: open = true", strings.Join(ways, ", or "))
	if letsEverybodyIn(l.Allow) {
		detail = `Its "allow" has all of IPv4 or of IPv6, and so does not count, whatever "deny" takes from it. ` + detail
	}
	return detail
}

// everybody are networks of which a list of clients that has one whole is none: all of
// IPv4, and what of IPv6 is given out on the Internet.
var everybody = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("2000::/3")}

func letsEverybodyIn(s cidr.Set) bool { return slices.ContainsFunc(everybody, s.Covers) }
