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
	// asks says that clients show who they are, so that they have a user.
	asks bool
	has  func(Listener) bool
	can  func(listen.Kind) bool // nil: listeners of every kind
}

// guards are all ways, in the order of messages.
var guards = []guard{
	{
		written: `tls { client_ca_file = "…" }`, asks: true,
		has: func(l Listener) bool { return l.TLS != nil && l.TLS.Server.ClientCAFile != "" },
		can: endsTLS,
	},
	{
		written: `allow = ["10.0.0.0/8"]`,
		has:     func(l Listener) bool { return !l.Allow.IsEmpty() && !letsEverybodyIn(l.Allow) },
	},
	{
		written: `auth { … }`, asks: true,
		has: func(l Listener) bool { return !l.Auth.IsZero() },
		can: func(k listen.Kind) bool { return k.Passwords },
	},
}

// ways are the guards that the listener could have, as they are written; of those that ask
// clients who they are alone, or of all.
func (l Listener) ways(asks bool) (written []string) {
	for _, g := range guards {
		if (g.can == nil || g.can(l.kind())) && (g.asks || !asks) {
			written = append(written, g.written)
		}
	}
	return written
}

// Exposed returns what to do about a listener that others than this machine's users reach;
// empty: nothing, it says who may use it.
func (l Listener) Exposed() string {
	if l.Open || slices.ContainsFunc(guards, func(g guard) bool { return g.has(l) }) {
		return ""
	}
	detail := fmt.Sprintf("Whoever reaches it can use its upstreams. Listen on 127.0.0.1, [::1] or localhost, or say who may come in: %s. If everybody may, write: open = true", strings.Join(l.ways(false), ", or "))
	if letsEverybodyIn(l.Allow) {
		detail = `Its "allow" has all of IPv4 or of IPv6, and so does not count, whatever "deny" takes from it. ` + detail
	}
	return detail
}

// asks says whether clients of the listener show who they are.
func (l Listener) asks() bool {
	return slices.ContainsFunc(guards, func(g guard) bool { return g.asks && g.has(l) })
}

// strangers warns of routes that take nobody of their listeners: since none of these asks for a
// user, or since nobody has an address.
func (p *parser) strangers() {
	for _, r := range p.routes {
		of := p.listenersOf(r)
		if len(r.route.Match.Sources) > 0 && len(of) > 0 && !slices.ContainsFunc(of, func(l Listener) bool { return !l.onlyUnix() }) {
			p.warnAt(r.sources, nobody, `It wants certain addresses, and its listeners have only unix sockets, whose clients have none. Leave "sources" out.`)
		}
		if len(r.route.Match.Users) == 0 || slices.ContainsFunc(of, Listener.asks) {
			continue
		}
		var ways []string
		for _, l := range of {
			ways = append(ways, l.ways(true)...)
		}
		slices.Sort(ways)
		p.warnAt(r.users, nobody, "It wants certain users, and none of its listeners asks clients who they are: "+oneOf(slices.Compact(ways), " to one of them", `leave "users" out`))
	}
}

const nobody = "Route that takes nobody"

// listenersOf are those whose clients may come to a route.
func (p *parser) listenersOf(r routePlace) []Listener {
	of := r.route.Match.Listeners
	return slices.DeleteFunc(slices.Clone(p.cfg.Listeners), func(l Listener) bool { return len(of) > 0 && !slices.Contains(of, l.ID()) })
}

// oneOf is what can be done: add one of the ways, or something else.
func oneOf(ways []string, where, orElse string) string {
	var todo []string
	for _, way := range ways {
		todo = append(todo, "add "+way+where)
	}
	return strings.Join(append(todo, orElse), ", or ") + "."
}

// everybody has, by family, what clients on the Internet can have as addresses: a list that
// has all of it is none. Of IPv4 that is all but 0.0.0.0/8, 127.0.0.0/8 and what begins at
// 224.0.0.0; of IPv6 it is where all lies that IANA has given out.
var everybody = [][]netip.Prefix{
	prefixes("1.0.0.0/8", "2.0.0.0/7", "4.0.0.0/6", "8.0.0.0/5", "16.0.0.0/4", "32.0.0.0/3", "64.0.0.0/3", "96.0.0.0/4",
		"112.0.0.0/5", "120.0.0.0/6", "124.0.0.0/7", "126.0.0.0/8", "128.0.0.0/2", "192.0.0.0/3"),
	prefixes("2000::/4"),
}

func prefixes(written ...string) (all []netip.Prefix) {
	for _, s := range written {
		all = append(all, netip.MustParsePrefix(s))
	}
	return all
}

func letsEverybodyIn(s cidr.Set) bool {
	return slices.ContainsFunc(everybody, func(family []netip.Prefix) bool {
		return !slices.ContainsFunc(family, func(n netip.Prefix) bool { return !s.Covers(n) })
	})
}
