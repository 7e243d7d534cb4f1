// Package route picks the route of a connection: the first one whose match block
// holds. It dials nothing.
package route

import "slices"

// scope is one value of each key by which a table splits its rules, or of each what
// a connection has; nil: all, or none. What is not split by is nil.
type scope [len(keys)]any

// each calls f for what the rule matches: all hosts are one for every host, and
// all ports include 0, which a label has. It stops when f returns false, and
// returns that.
func (r Rule) each(f func(s scope, h host, ports portRange) bool) bool {
	hosts := []host{{every: true}}
	if len(r.Hosts) > 0 {
		hosts = hosts[:0]
		for _, written := range r.Hosts {
			hosts = append(hosts, pattern(written))
		}
	}
	ports := []portRange{{0, 65535}}
	if len(r.Ports) > 0 {
		ports = ports[:0]
		for _, written := range r.Ports {
			p, _ := parsePorts(written) // it was checked
			ports = append(ports, p)
		}
	}
	scopes := r.scopes()
	for _, h := range hosts {
		for _, s := range scopes {
			for _, p := range ports {
				if !f(s, h, p) {
					return false
				}
			}
		}
	}
	return true
}

func (r Rule) scopes() []scope {
	scopes := make([]scope, 1)
	for i, k := range keys {
		elements := *k.In(&r)
		if k.parse == nil || len(elements) == 0 {
			continue
		}
		var split []scope
		for _, s := range scopes {
			for _, written := range elements {
				s[i] = k.parse(written)
				split = append(split, s)
			}
		}
		scopes = split
	}
	return scopes
}

// Table finds the first of many rules without looking at each. It is
// immutable: any number of goroutines may use it at once.
type Table struct {
	by    map[scope]*index
	forms [len(keys)][]any // of the values in by
}

// New builds a table. The position of a rule in rules is the number that Find
// returns.
func New(rules []Rule) *Table {
	t := &Table{by: map[scope]*index{}}
	for i, r := range rules {
		t.add(i, r)
	}
	return t
}

// add adds a rule; its number is above those of the rules that are there.
func (t *Table) add(number int, r Rule) {
	r.each(func(s scope, h host, ports portRange) bool {
		x := t.by[s]
		if x == nil {
			x = newIndex()
			t.by[s] = x
			t.addForms(s)
		}
		x.add(h, ports, number)
		return true
	})
}

func (t *Table) addForms(s scope) {
	for i, value := range s {
		if value == nil {
			continue
		}
		if form := keys[i].form(value); !slices.Contains(t.forms[i], form) {
			t.forms[i] = append(t.forms[i], form)
		}
	}
}

// Find returns the number of the first rule that matches, or false.
func (t *Table) Find(c Connection) (int, bool) {
	var s scope
	for i, k := range keys {
		if len(t.forms[i]) > 0 {
			s[i] = k.of(c)
		}
	}
	n := t.first(s, literal(c.Target.Host), portRange{c.Target.Port, c.Target.Port})
	return n, n != none
}

// first returns the number of the first rule that takes all of what a scope, a
// host and ports stand for, or none.
func (t *Table) first(s scope, h host, ports portRange) int {
	return t.firstFrom(none, s, 0, h, ports)
}

// firstFrom is first where the values of s up to the one at i are to be looked up
// as they are, and the others in any form that takes them.
func (t *Table) firstFrom(best int, s scope, i int, h host, ports portRange) int {
	for i < len(s) && s[i] == nil {
		i++
	}
	if i == len(s) {
		if x := t.by[s]; x != nil {
			return x.first(best, h, ports)
		}
		return best
	}
	value := s[i]
	s[i] = nil
	best = t.firstFrom(best, s, i+1, h, ports)
	for _, form := range t.forms[i] {
		if wider, ok := keys[i].as(value, form); ok {
			s[i] = wider
			best = t.firstFrom(best, s, i+1, h, ports)
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
	covered := r.each(func(s scope, h host, ports portRange) bool {
		n := t.first(s, h, ports)
		last = max(last, n)
		return n != none
	})
	if !covered {
		return none
	}
	return last
}
