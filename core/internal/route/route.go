// Package route picks the route of a connection: the first one in order of
// appearance whose match block holds. It dials nothing.
package route

import (
	"net/netip"
	"strings"

	"github.com/tunneld/tunneld/core/internal/tunnel"
)

// Rule is what a route matches. All that is given must hold; within one, any.
// The zero value matches everything.
type Rule struct {
	// Listeners are listener IDs ("tcp.orders").
	Listeners []string
	// Hosts are names, globs ("*" is any run of characters, dots included, "?"
	// one character), IP literals and CIDRs. Only the last two match a target
	// that is an IP literal, and they match no other. All are compared without
	// case and trailing dot, an IPv4-mapped address as IPv4.
	Hosts []string
	Ports []PortRange
}

// PortRange is From to To, both included.
type PortRange struct{ From, To uint16 }

// each calls f for what the rule matches: all listeners are "", all hosts one
// for every host, and all ports include 0, which a label has. It stops when f
// returns false, and returns that.
func (r Rule) each(f func(listener string, h host, ports PortRange) bool) bool {
	listeners, ports := r.Listeners, r.Ports
	if len(listeners) == 0 {
		listeners = []string{""}
	}
	hosts := []host{{every: true}}
	if len(r.Hosts) > 0 {
		hosts = hosts[:0]
		for _, written := range r.Hosts {
			hosts = append(hosts, pattern(written))
		}
	}
	if len(ports) == 0 {
		ports = []PortRange{{0, 65535}}
	}
	for _, h := range hosts {
		for _, l := range listeners {
			for _, p := range ports {
				if !f(l, h, p) {
					return false
				}
			}
		}
	}
	return true
}

// host is what a client asks for, or an element of Rule.Hosts, in the form in
// which hosts are compared: lower case, no trailing dot, IP literals in their
// shortest form, IPv4-mapped as IPv4.
type host struct {
	every bool         // all names, labels and IP literals; the rest is unset
	text  string       // a name, a glob or an IP literal; unset: a CIDR
	net   netip.Prefix // of a CIDR, and of an IP literal as long as it is
}

// literal is a host as a client asks for it.
func literal(s string) host {
	s = strings.TrimSuffix(s, ".")
	a, err := netip.ParseAddr(s)
	if err != nil {
		return host{text: strings.ToLower(s)}
	}
	a = a.Unmap()
	return host{text: a.String(), net: netip.PrefixFrom(a.WithZone(""), a.BitLen())}
}

// pattern is an element of Rule.Hosts.
func pattern(s string) host {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		for strings.Contains(s, "**") {
			s = strings.ReplaceAll(s, "**", "*")
		}
		return literal(s)
	}
	if a := p.Addr(); a.Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(a.Unmap(), p.Bits()-96)
	}
	return host{net: p.Masked()}
}

// Table finds the first of many rules without looking at each. It is
// immutable: any number of goroutines may use it at once.
type Table struct {
	by map[string]*index // by listener ID; "": of all listeners
}

// New builds a table. The position of a rule in rules is the number that Find
// returns.
func New(rules []Rule) *Table {
	t := &Table{by: map[string]*index{}}
	for i, r := range rules {
		t.add(i, r)
	}
	return t
}

// add adds a rule; its number is above those of the rules that are there.
func (t *Table) add(number int, r Rule) {
	r.each(func(listener string, h host, ports PortRange) bool {
		x := t.by[listener]
		if x == nil {
			x = newIndex()
			t.by[listener] = x
		}
		x.add(h, ports, number)
		return true
	})
}

// Find returns the number of the first rule that matches, or false.
func (t *Table) Find(listener string, target tunnel.Target) (int, bool) {
	n := t.first(listener, literal(target.Host), PortRange{target.Port, target.Port})
	return n, n != none
}

// first returns the number of the first rule that takes all of what a listener,
// a host and ports stand for, or none.
func (t *Table) first(listener string, h host, ports PortRange) int {
	best := none
	for _, x := range [...]*index{t.by[""], t.by[listener]} {
		if x != nil {
			best = x.first(best, h, ports)
		}
	}
	return best
}

// Hidden is a rule that is never the first to match.
type Hidden struct {
	Rule int
	// By is the earlier rule with which all that Rule matches was taken: by it
	// alone, or by it and rules before it.
	By    int
	Alone bool
}

// FindHidden returns rules that earlier ones hide. Each of them is hidden; not
// all that are hidden are found, where it takes several rules together, or
// globs whose texts would have to be tried.
func FindHidden(rules []Rule) []Hidden {
	var found []Hidden
	t := New(nil)
	for i, r := range rules {
		if by := t.covers(r); by != none {
			alone := New(rules[by:by+1]).covers(r) != none
			found = append(found, Hidden{Rule: i, By: by, Alone: alone})
		}
		t.add(i, r)
	}
	return found
}

// covers returns the last of the rules that it takes to match all that r does,
// or none: some of it may be left.
func (t *Table) covers(r Rule) int {
	last := 0
	covered := r.each(func(listener string, h host, ports PortRange) bool {
		n := t.first(listener, h, ports)
		last = max(last, n)
		return n != none
	})
	if !covered {
		return none
	}
	return last
}

// glob says whether s matches pattern, in which "*" is any run of bytes and "?"
// one byte. Its time is bounded by the product of the two lengths.
//
// Where s is a pattern, it says whether all that s matches pattern matches: a
// "*" in s is any run of bytes, which only "*" takes. No host has one.
func glob(pattern, s string) bool {
	p, i := 0, 0
	star, mark := -1, 0
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, i
			p++
		case p < len(pattern) && (pattern[p] == s[i] || pattern[p] == '?' && s[i] != '*'):
			p++
			i++
		case star >= 0:
			mark++
			p, i = star+1, mark
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}
