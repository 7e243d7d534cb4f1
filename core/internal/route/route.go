// Package route picks the route of a connection: the first one in order of
// appearance whose match block holds. It dials nothing.
package route

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/tunneld/tunneld/core/internal/tunnel"
)

// Rule is what a route matches. All that is given must hold; within one, any.
// The zero value matches everything.
type Rule struct {
	// Listeners are listener IDs ("tcp.orders").
	Listeners []string
	// Hosts are names, globs ("*" is any run of characters, dots included, "?"
	// one character) and CIDRs, which match IP literals only. A name or IP
	// literal is compared without case and trailing dot, an IPv4-mapped address
	// as IPv4.
	Hosts []string
	Ports []PortRange
}

// PortRange is From to To, both included.
type PortRange struct{ From, To uint16 }

// Table finds the first of many rules without looking at each. It is
// immutable: any number of goroutines may use it at once.
type Table struct {
	ports [][]PortRange // by rule number: what the indexes leave to be checked
	any   index
	by    map[string]*index // by listener ID
}

// index holds rule numbers, ascending in each list, by what they say of the
// host.
type index struct {
	all    []int
	names  map[string][]int
	suffix map[string][]int // ".corp" of "*.corp"
	globs  []globRule
	nets   map[netip.Prefix][]int
	bits   []netip.Prefix // one per prefix length in use, for the masks
}

type globRule struct {
	pattern string
	number  int
}

// New builds a table. The position of a rule in rules is the number that Find
// returns.
func New(rules []Rule) *Table {
	t := &Table{by: map[string]*index{}}
	for i, r := range rules {
		t.ports = append(t.ports, r.Ports)
		if len(r.Listeners) == 0 {
			t.any.add(i, r.Hosts)
		}
		for _, l := range r.Listeners {
			x := t.by[l]
			if x == nil {
				x = &index{}
				t.by[l] = x
			}
			x.add(i, r.Hosts)
		}
	}
	return t
}

func (x *index) add(number int, hosts []string) {
	if len(hosts) == 0 {
		x.all = append(x.all, number)
		return
	}
	for _, h := range hosts {
		if p, err := netip.ParsePrefix(h); err == nil {
			x.addNet(number, p)
			continue
		}
		h = Normalize(h)
		suffix, isSuffix := strings.CutPrefix(h, "*")
		switch {
		case isSuffix && strings.HasPrefix(suffix, ".") && !strings.ContainsAny(suffix, "*?"):
			put(&x.suffix, suffix, number)
		case strings.ContainsAny(h, "*?"):
			x.globs = append(x.globs, globRule{pattern: h, number: number})
		default:
			put(&x.names, h, number)
		}
	}
}

func (x *index) addNet(number int, p netip.Prefix) {
	if a := p.Addr(); a.Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(a.Unmap(), p.Bits()-96)
	}
	p = p.Masked()
	put(&x.nets, p, number)
	same := func(q netip.Prefix) bool { return q.Bits() == p.Bits() && q.Addr().Is4() == p.Addr().Is4() }
	if !slices.ContainsFunc(x.bits, same) {
		x.bits = append(x.bits, p)
	}
}

func put[K comparable](m *map[K][]int, key K, number int) {
	if *m == nil {
		*m = map[K][]int{}
	}
	list := (*m)[key]
	if len(list) > 0 && list[len(list)-1] == number {
		return
	}
	(*m)[key] = append(list, number)
}

// Find returns the number of the first rule that matches, or false.
func (t *Table) Find(listener string, target tunnel.Target) (int, bool) {
	host := Normalize(target.Host)
	addr, err := netip.ParseAddr(host)
	isAddr := err == nil
	best := len(t.ports)
	for _, x := range [...]*index{&t.any, t.by[listener]} {
		if x == nil {
			continue
		}
		best = t.first(best, x.all, target.Port)
		best = t.first(best, x.names[host], target.Port)
		for i := 0; i < len(host) && len(x.suffix) > 0; i++ {
			if host[i] == '.' && i > 0 {
				best = t.first(best, x.suffix[host[i:]], target.Port)
			}
		}
		for _, g := range x.globs {
			if g.number >= best {
				break
			}
			if t.portOK(g.number, target.Port) && Glob(g.pattern, host) {
				best = g.number
			}
		}
		if !isAddr {
			continue
		}
		for _, b := range x.bits {
			if b.Addr().Is4() != addr.Is4() {
				continue
			}
			if p, err := addr.WithZone("").Prefix(b.Bits()); err == nil {
				best = t.first(best, x.nets[p], target.Port)
			}
		}
	}
	return best, best < len(t.ports)
}

// first returns the first number of list below best whose ports match, or best.
func (t *Table) first(best int, list []int, port uint16) int {
	for _, n := range list {
		if n >= best {
			return best
		}
		if t.portOK(n, port) {
			return n
		}
	}
	return best
}

func (t *Table) portOK(number int, port uint16) bool {
	ports := t.ports[number]
	if len(ports) == 0 {
		return true
	}
	for _, r := range ports {
		if r.From <= port && port <= r.To {
			return true
		}
	}
	return false
}

// Normalize returns a host in the form in which hosts are compared: lower case,
// no trailing dot, IP literals in their shortest form, IPv4-mapped as IPv4.
func Normalize(host string) string {
	if a, err := netip.ParseAddr(host); err == nil {
		return a.Unmap().String()
	}
	return strings.ToLower(strings.TrimSuffix(host, "."))
}

// Glob says whether s matches pattern, in which "*" is any run of bytes and "?"
// one byte. Its time is bounded by the product of the two lengths.
func Glob(pattern, s string) bool {
	p, i := 0, 0
	star, mark := -1, 0
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, i
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == s[i]):
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
