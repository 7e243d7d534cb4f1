package route

import (
	"math"
	"net/netip"
	"slices"
	"strings"
)

// none is above every rule's number.
const none = math.MaxInt

// index holds rules by what they say of the host. Rules that say the same share
// a portMap, in which the earlier one has its ports.
type index struct {
	all      portMap
	names    map[string]*portMap
	suffixes map[string]*portMap // ".corp" of "*.corp"
	globs    map[string]*globRule
	starts   texts // globs that begin with their longest text
	tails    texts // globs that end with it
	middles  texts // the other ones
	nets     map[netip.Prefix]*portMap
	lengths  []netip.Prefix // one per prefix length in use, for the masks
}

// globRule is a glob that is not "*.suffix".
type globRule struct {
	pattern string
	number  int // of the first rule with it
	ports   portMap
}

// texts are globs by their longest text without a wildcard.
type texts struct {
	globs   map[string][]*globRule // ascending by number
	lengths []int                  // of the texts
}

func newIndex() *index {
	return &index{
		names:    map[string]*portMap{},
		suffixes: map[string]*portMap{},
		globs:    map[string]*globRule{},
		starts:   texts{globs: map[string][]*globRule{}},
		tails:    texts{globs: map[string][]*globRule{}},
		middles:  texts{globs: map[string][]*globRule{}},
		nets:     map[netip.Prefix]*portMap{},
	}
}

func (x *index) add(h host, ports portRange, number int) {
	suffix, isSuffix := strings.CutPrefix(h.text, "*")
	switch {
	case h.every:
		x.all.add(ports, number)
	case h.text == "" && h.net.IsValid():
		x.addNet(h.net, ports, number)
	case isSuffix && strings.HasPrefix(suffix, ".") && !strings.ContainsAny(suffix, "*?"):
		put(x.suffixes, suffix, ports, number)
	case strings.ContainsAny(h.text, "*?"):
		x.addGlob(h.text, ports, number)
	default:
		put(x.names, h.text, ports, number)
	}
}

func put[K comparable](m map[K]*portMap, key K, ports portRange, number int) {
	if m[key] == nil {
		m[key] = &portMap{}
	}
	m[key].add(ports, number)
}

func (x *index) addNet(p netip.Prefix, ports portRange, number int) {
	put(x.nets, p, ports, number)
	same := func(q netip.Prefix) bool { return q.Bits() == p.Bits() && q.Addr().Is4() == p.Addr().Is4() }
	if !slices.ContainsFunc(x.lengths, same) {
		x.lengths = append(x.lengths, p)
	}
}

func (x *index) addGlob(pattern string, ports portRange, number int) {
	g := x.globs[pattern]
	if g == nil {
		g = &globRule{pattern: pattern, number: number}
		x.globs[pattern] = g
		longest := ""
		for _, text := range strings.FieldsFunc(pattern, func(r rune) bool { return r == '*' || r == '?' }) {
			if len(text) > len(longest) {
				longest = text
			}
		}
		switch {
		case strings.HasPrefix(pattern, longest):
			x.starts.add(longest, g)
		case strings.HasSuffix(pattern, longest):
			x.tails.add(longest, g)
		default:
			x.middles.add(longest, g)
		}
	}
	g.ports.add(ports, number)
}

func (t *texts) add(text string, g *globRule) {
	t.globs[text] = append(t.globs[text], g)
	if !slices.Contains(t.lengths, len(text)) {
		t.lengths = append(t.lengths, len(text))
	}
}

// first returns the number of the first rule that takes all the ports of all
// that h stands for, if that is below best, or best.
func (x *index) first(best int, h host, ports portRange) int {
	best = min(best, x.all.first(ports))
	if h.every {
		return best
	}
	best = min(best, x.names[h.text].first(ports))
	if h.net.IsValid() {
		return x.firstNet(best, h.net, ports)
	}
	for i := 1; i < len(h.text) && len(x.suffixes) > 0; i++ {
		if h.text[i] == '.' {
			best = min(best, x.suffixes[h.text[i:]].first(ports))
		}
	}
	return x.firstGlob(best, h.text, ports)
}

// firstNet is first of the rules that name networks.
func (x *index) firstNet(best int, within netip.Prefix, ports portRange) int {
	for _, l := range x.lengths {
		if l.Addr().Is4() != within.Addr().Is4() || l.Bits() > within.Bits() {
			continue
		}
		if p, err := within.Addr().Prefix(l.Bits()); err == nil {
			best = min(best, x.nets[p].first(ports))
		}
	}
	return best
}

func (x *index) firstGlob(best int, host string, ports portRange) int {
	for _, n := range x.starts.lengths {
		if n <= len(host) {
			best = x.starts.first(best, host[:n], host, ports)
		}
	}
	for _, n := range x.tails.lengths {
		if n <= len(host) {
			best = x.tails.first(best, host[len(host)-n:], host, ports)
		}
	}
	for _, n := range x.middles.lengths {
		for i := 0; i+n <= len(host); i++ {
			best = x.middles.first(best, host[i:i+n], host, ports)
		}
	}
	return best
}

func (t *texts) first(best int, text, host string, ports portRange) int {
	for _, g := range t.globs[text] {
		if g.number >= best {
			break
		}
		if n := g.ports.first(ports); n < best && glob(g.pattern, host) {
			best = n
		}
	}
	return best
}

// portMap says of each port which rule is the first to take it: its spans are
// ascending and do not overlap.
type portMap struct{ spans []span }

type span struct {
	portRange
	number int
}

// add gives a rule those of the ports that no earlier one has.
func (m *portMap) add(ports portRange, number int) {
	from, to := int(ports.from), int(ports.to)
	for i := m.search(ports.from); from <= to; i++ {
		free := to
		if i < len(m.spans) {
			free = min(free, int(m.spans[i].from)-1)
		}
		if from <= free {
			m.spans = slices.Insert(m.spans, i, span{portRange{uint16(from), uint16(free)}, number})
		}
		from = int(m.spans[i].to) + 1
	}
}

// first returns the number with which all of the ports are taken, or none.
func (m *portMap) first(ports portRange) int {
	if m == nil {
		return none
	}
	last := 0
	from := int(ports.from)
	for i := m.search(ports.from); from <= int(ports.to); i++ {
		if i == len(m.spans) || int(m.spans[i].from) > from {
			return none
		}
		last = max(last, m.spans[i].number)
		from = int(m.spans[i].to) + 1
	}
	return last
}

// search returns the position of the first span that does not end before port.
func (m *portMap) search(port uint16) int {
	i, _ := slices.BinarySearchFunc(m.spans, port, func(s span, port uint16) int { return int(s.to) - int(port) })
	return i
}
