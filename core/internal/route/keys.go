package route

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/tunneld/tunneld/core/internal/tunnel"
)

// Key is an attribute of a match block: a list, of which any element has to
// match. All that is to be known of it is said here; the configuration reads
// Keys, and so does Table.
type Key struct {
	Name string
	// References is the type of the blocks that the elements refer to; empty: they
	// are texts.
	References string
	// Numbers says that an element may be written as a whole number, too.
	Numbers bool
	// Check says what is wrong with an element: nothing, or a sentence for the
	// user. It is nil for references. Doubt, unless nil, says of a right one that
	// something else may be meant: in a few words, and in a sentence.
	Check func(written string) string
	Doubt func(written string) (summary, detail string)
	// In is where a rule has the elements.
	In func(*Rule) *[]string

	// What follows is of keys by which a Table splits its rules: all but the hosts
	// and the ports, which an index takes.

	// parse returns what an element stands for, in a form that can be compared.
	parse func(written string) any
	// of is the same of what a connection has; nil: it has none, and no element
	// matches it.
	of func(Connection) any
	// form is what elements have in common that can be looked up in the same way,
	// and as is a value in such a form, if that is wider or the same: a network in
	// another one's length, for instance.
	form func(value any) any
	as   func(value, form any) (any, bool)
}

// keys is the one list of what routes match by. The order is that of the
// documentation.
var keys = [...]Key{listenersKey, sourcesKey, usersKey, hostsKey, portsKey}

// Keys returns the attributes of a match block.
func Keys() []Key { return keys[:] }

// Rule is what a route matches, as it is written: see Keys. All that is given
// must hold; within one, any. The zero value matches everything.
type Rule struct {
	// Listeners are listener IDs ("tcp.orders").
	Listeners []string
	// Sources are IP addresses and CIDRs of clients, an IPv4-mapped one as IPv4.
	Sources []string
	// Users are who clients have shown to be, compared byte by byte.
	Users []string
	// Hosts are names, globs ("*" is any run of characters, dots included, "?"
	// one character), IP literals and CIDRs. Only the last two match a target
	// that is an IP literal, and they match no other. All are compared without
	// case and trailing dot, names in ASCII, an IPv4-mapped address as IPv4.
	Hosts []string
	// Ports are "5432", or "9000-9100" with both included.
	Ports []string
}

// Later are names that are taken for keys to come.
var Later = []string{"labels"}

// Connection is what a route is looked for.
type Connection struct {
	Listener string     // its ID, "tcp.orders"
	Source   netip.Addr // the client's
	User     string     // who the client has shown to be; empty: nobody
	Target   tunnel.Target
}

var listenersKey = Key{
	Name:       "listeners",
	References: "listener",
	In:         func(r *Rule) *[]string { return &r.Listeners },
	parse:      func(written string) any { return written },
	of:         func(c Connection) any { return c.Listener },
	form:       oneForm,
	as:         asItIs,
}

// usersKey is exact: a name that another one could be taken for would be a way in.
var usersKey = Key{
	Name:  "users",
	Check: checkUser,
	Doubt: func(written string) (summary, detail string) {
		if strings.Contains(written, "*") {
			return `User with a "*"`, "Users are compared exactly, and \"*\" is no wildcard here. Write each user as the log has it."
		}
		return "", ""
	},
	In:    func(r *Rule) *[]string { return &r.Users },
	parse: func(written string) any { return written },
	of: func(c Connection) any {
		if c.User == "" {
			return nil
		}
		return c.User
	},
	form: oneForm,
	as:   asItIs,
}

// checkUser returns an empty text, or a sentence for the user.
func checkUser(s string) string {
	if s == "" || strings.TrimSpace(s) != s {
		return `A user is a name as the log has it, without spaces around it: "alice", "db.corp", "spiffe://corp/orders".`
	}
	return ""
}

// oneForm and asItIs are of keys whose elements are looked up as they are.
func oneForm(any) any { return nil }

func asItIs(value, _ any) (any, bool) { return value, true }

var portsKey = Key{
	Name:    "ports",
	Numbers: true,
	Check: func(written string) string {
		_, problem := parsePorts(written)
		return problem
	},
	In: func(r *Rule) *[]string { return &r.Ports },
}

// portRange is from to to, both included.
type portRange struct{ from, to uint16 }

// parsePorts reads an element of Rule.Ports, or says what is wrong with it.
func parsePorts(written string) (portRange, string) {
	const want = `Write a port from 1 to 65535, or a range in quotes: 5432, "9000-9100".`
	first, last, isRange := strings.Cut(written, "-")
	if !isRange {
		last = first
	}
	from, ok1 := ParsePort(first)
	to, ok2 := ParsePort(last)
	switch {
	case !ok1 || !ok2 || from == 0 || to == 0:
		return portRange{}, want
	case from > to:
		return portRange{}, "The range is the wrong way round. Write the smaller port first."
	}
	return portRange{from, to}, ""
}

// ParsePort reads a port in decimal, without sign or leading zeros.
func ParsePort(s string) (uint16, bool) {
	n, err := strconv.ParseUint(s, 10, 16)
	return uint16(n), err == nil && strconv.FormatUint(n, 10) == s
}
