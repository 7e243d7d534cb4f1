package route

import (
	"fmt"
	"iter"
	"math/rand/v2"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/tunneld/tunneld/core/internal/tunnel"
)

// matches is what Rule's documentation says, without an index.
func matches(r Rule, c Connection) bool {
	target := c.Target
	port := func(written string) bool {
		p, _ := parsePorts(written)
		return p.from <= target.Port && target.Port <= p.to
	}
	source := func(s string) bool {
		if p, err := netip.ParsePrefix(s); err == nil {
			return p.Contains(c.Source)
		}
		return s == c.Source.String()
	}
	host := func(h string) bool { return matching[[2]string{h, target.Host}] }
	return (len(r.Listeners) == 0 || slices.Contains(r.Listeners, c.Listener)) &&
		(len(r.Sources) == 0 || slices.ContainsFunc(r.Sources, source)) &&
		(len(r.Users) == 0 || c.User != "" && slices.Contains(r.Users, c.User)) &&
		(len(r.Hosts) == 0 || slices.ContainsFunc(r.Hosts, host)) &&
		(len(r.Ports) == 0 || slices.ContainsFunc(r.Ports, port))
}

func hostMatches(pattern, host string) bool {
	a, err := netip.ParseAddr(host)
	if p, notNet := netip.ParsePrefix(pattern); notNet == nil {
		return err == nil && p.Contains(a)
	}
	if err == nil {
		return pattern == host
	}
	pattern = strings.ReplaceAll(pattern, "**", "*")
	if suffix, ok := strings.CutPrefix(pattern, "*."); ok && !strings.ContainsAny(suffix, "*?") {
		pattern = "?*." + suffix
	}
	quoted := strings.NewReplacer(`\*`, ".*", `\?`, ".").Replace(regexp.QuoteMeta(pattern))
	return regexp.MustCompile("^" + quoted + "$").MatchString(host)
}

// The universe of the random tests: every rule is of these, and every target.
var (
	someListeners = []string{"tcp.a", "tcp.b", "socks5.c"}
	someNetworks  = []string{"10.0.0.0/8", "10.1.0.0/16", "10.1.2.3", "0.0.0.0/0", "fd00::/8", "fd00::1"}
	someSources   = []netip.Addr{netip.MustParseAddr("10.1.2.3"), netip.MustParseAddr("10.2.2.3"), netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fe80::1")}
	someUsers     = []string{"", "alice", "Alice", "bob"}
	somePatterns  = []string{
		"*", "*.corp", "*.x.corp", "a.corp", "?.corp", "b?.corp", "b*.corp", "*b*", "b*", "**.corp", "*?", "?*", "??*",
		"*-b.corp", "?-b.corp", "a*b.corp", "*b.c*", "?*1*.corp", "*?1?c*", "10.0.0.0/8", "10.1.0.0/16", "0.0.0.0/0", "10.1.2.3", "10.*", "fd00::/8", "fd*", "fd00::1",
	}
	someHosts = []string{
		"a.corp", "b.corp", "b1.corp", "x.corp", "x.b.corp", "b.x.corp", ".corp", "corp", "c", "b", "", "a-b.corp", "-b.corp", "axb.corp",
		"10.1.2.3", "10.1.9.9", "10.9.9.9", "11.1.1.1", "fd00::1", "fd00::2", "fe80::1",
	}
)

// matching holds hostMatches of all patterns and hosts of the universe.
var matching = func() map[[2]string]bool {
	m := map[[2]string]bool{}
	for _, p := range somePatterns {
		for _, h := range someHosts {
			m[[2]string{p, h}] = hostMatches(p, h)
		}
	}
	return m
}()

// someConnections are all of the universe.
func someConnections() iter.Seq[Connection] {
	return func(yield func(Connection) bool) {
		for _, l := range someListeners {
			for _, s := range someSources {
				for _, u := range someUsers {
					for _, h := range someHosts {
						for port := range uint16(8) {
							if !yield(Connection{Listener: l, Source: s, User: u, Target: tunnel.Target{Host: h, Port: port}}) {
								return
							}
						}
					}
				}
			}
		}
	}
}

func someRules(rnd *rand.Rand) []Rule {
	var rules []Rule
	for range rnd.IntN(12) {
		var r Rule
		for range rnd.IntN(3) {
			r.Listeners = append(r.Listeners, someListeners[rnd.IntN(len(someListeners))])
		}
		for range max(rnd.IntN(5)-2, 0) {
			r.Sources = append(r.Sources, someNetworks[rnd.IntN(len(someNetworks))])
		}
		for range max(rnd.IntN(5)-2, 0) {
			r.Users = append(r.Users, someUsers[1+rnd.IntN(len(someUsers)-1)])
		}
		for range rnd.IntN(4) {
			r.Hosts = append(r.Hosts, somePatterns[rnd.IntN(len(somePatterns))])
		}
		for range rnd.IntN(3) {
			from := 1 + rnd.IntN(4)
			r.Ports = append(r.Ports, fmt.Sprintf("%d-%d", from, from+rnd.IntN(3)))
		}
		rules = append(rules, r)
	}
	return rules
}

// TestLikeScan compares the indexes with a scan over the rules in order: Find
// finds the same, and a rule that is said to be hidden is never the first.
func TestLikeScan(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	hidden, first, never := 0, 0, 0
	for range 100 {
		rules := someRules(rnd)
		table := New(rules)
		seen := make([]bool, len(rules))
		for c := range someConnections() {
			want := slices.IndexFunc(rules, func(r Rule) bool { return matches(r, c) })
			got, ok := table.Find(c)
			if !ok {
				got = -1
			}
			if got != want {
				t.Fatalf("rules %+v, %+v: got %d, want %d", rules, c, got, want)
			}
			if want >= 0 {
				seen[want] = true
			}
		}
		for _, h := range FindHidden(rules) {
			hidden++
			if seen[h.Rule] || h.By >= h.Rule {
				t.Fatalf("rules %+v: %+v, but it is the first to match", rules, h)
			}
		}
		for _, s := range seen {
			if s {
				first++
			} else {
				never++
			}
		}
	}
	// What is never first is so in this universe of few hosts and listeners.
	t.Logf("%d rules are first to match, %d are not, and of these %d are found", first, never, hidden)
	if hidden < never/2 {
		t.Errorf("%d of %d rules that are never first are found", hidden, never)
	}
}

// TestFindHidden: the last rule is the one that may be hidden, by that which is
// given, and alone unless it says "with others".
func TestFindHidden(t *testing.T) {
	hosts := func(h ...string) Rule { return Rule{Hosts: h} }
	on := func(l ...string) Rule { return Rule{Listeners: l} }
	ports := func(p ...string) Rule { return Rule{Ports: p} }
	from := func(s ...string) Rule { return Rule{Sources: s} }
	of := func(u ...string) Rule { return Rule{Users: u} }
	const reachable = -1
	tests := map[string]struct {
		rules  []Rule
		by     int
		others bool
	}{
		"everything":                        {[]Rule{{}, hosts("a")}, 0, false},
		"every host":                        {[]Rule{{}, hosts("*")}, 0, false},
		"no address is of every name":       {[]Rule{hosts("*"), {}}, reachable, false},
		"name of every name":                {[]Rule{hosts("*"), hosts("db.corp")}, 0, false},
		"glob of every name":                {[]Rule{hosts("*"), hosts("*.corp")}, 0, false},
		"every name of a glob":              {[]Rule{hosts("?*"), hosts("*")}, reachable, false},
		"address of every name":             {[]Rule{hosts("*"), hosts("10.1.2.3")}, reachable, false},
		"network of every name":             {[]Rule{hosts("*"), hosts("10.0.0.0/8")}, reachable, false},
		"address of a glob":                 {[]Rule{hosts("10.*"), hosts("10.1.2.3")}, reachable, false},
		"address with a dot in a network":   {[]Rule{hosts("10.0.0.0/8"), hosts("10.1.2.3.")}, 0, false},
		"everything after something":        {[]Rule{hosts("a"), {}}, reachable, false},
		"the same":                          {[]Rule{hosts("a", "*.b"), hosts("*.B.", "A.")}, 0, false},
		"some hosts":                        {[]Rule{hosts("a"), hosts("a", "b")}, reachable, false},
		"hosts of two":                      {[]Rule{hosts("a"), hosts("b"), hosts("a", "b")}, 1, true},
		"the later of two alone":            {[]Rule{hosts("a"), hosts("a", "b"), hosts("a", "b")}, 1, false},
		"name of a suffix":                  {[]Rule{hosts("*.corp"), hosts("db.corp")}, 0, false},
		"the suffix itself":                 {[]Rule{hosts("*.corp"), hosts("corp")}, reachable, false},
		"suffix of a suffix":                {[]Rule{hosts("*.corp"), hosts("*.eu.corp")}, 0, false},
		"the wider suffix":                  {[]Rule{hosts("*.eu.corp"), hosts("*.corp")}, reachable, false},
		"name of a glob":                    {[]Rule{hosts("db-*.corp"), hosts("db-1.corp")}, 0, false},
		"glob of a suffix":                  {[]Rule{hosts("*.corp"), hosts("db-?.corp")}, 0, false},
		"glob of a glob":                    {[]Rule{hosts("db*"), hosts("db-*.corp")}, 0, false},
		"star of a question mark":           {[]Rule{hosts("db?"), hosts("db*")}, reachable, false},
		"question mark of a star":           {[]Rule{hosts("db*"), hosts("db?")}, 0, false},
		"no host is shorter":                {[]Rule{hosts("db?*"), hosts("db*")}, reachable, false},
		"network in a network":              {[]Rule{hosts("10.0.0.0/8"), hosts("10.1.0.0/16")}, 0, false},
		"the wider network":                 {[]Rule{hosts("10.1.0.0/16"), hosts("10.0.0.0/8")}, reachable, false},
		"address in a network":              {[]Rule{hosts("10.0.0.0/8"), hosts("::ffff:10.1.2.3")}, 0, false},
		"address in a mapped network":       {[]Rule{hosts("::ffff:10.0.0.0/104"), hosts("10.1.2.3")}, 0, false},
		"address of the other family":       {[]Rule{hosts("0.0.0.0/0"), hosts("fd00::1")}, reachable, false},
		"glob in a network":                 {[]Rule{hosts("10.0.0.0/8"), hosts("10.*")}, reachable, false},
		"network beside a glob":             {[]Rule{hosts("10.*"), hosts("10.0.0.0/8")}, reachable, false},
		"port of a range":                   {[]Rule{ports("1-9"), ports("5")}, 0, false},
		"range across ranges that meet":     {[]Rule{ports("1-4", "5-9"), ports("3-7")}, 0, false},
		"range across two rules":            {[]Rule{ports("1-4"), ports("5-9"), ports("3-7")}, 1, true},
		"range with a hole":                 {[]Rule{ports("1-4", "6-9"), ports("3-7")}, reachable, false},
		"a label has no port":               {[]Rule{ports("1-65535"), {}}, reachable, false},
		"port of every port":                {[]Rule{hosts("a"), {Hosts: []string{"a"}, Ports: []string{"1-2"}}}, 0, false},
		"host and port of different rules":  {[]Rule{hosts("a"), ports("1"), {Hosts: []string{"b"}, Ports: []string{"2"}}}, reachable, false},
		"listener":                          {[]Rule{on("tcp.a"), {Listeners: []string{"tcp.a"}, Hosts: []string{"a"}}}, 0, false},
		"another listener":                  {[]Rule{on("tcp.a"), on("tcp.b")}, reachable, false},
		"one of two listeners":              {[]Rule{on("tcp.a"), on("tcp.a", "tcp.b")}, reachable, false},
		"both listeners":                    {[]Rule{on("tcp.a"), on("tcp.b"), on("tcp.a", "tcp.b")}, 1, true},
		"every listener, after one":         {[]Rule{on("tcp.a"), hosts("a")}, reachable, false},
		"one listener, after every":         {[]Rule{hosts("a"), {Listeners: []string{"tcp.a"}, Hosts: []string{"a"}}}, 0, false},
		"client in a network":               {[]Rule{from("10.0.0.0/8"), from("10.1.2.3", "10.2.0.0/16")}, 0, false},
		"the wider network of clients":      {[]Rule{from("10.1.0.0/16"), from("10.0.0.0/8")}, reachable, false},
		"clients of two rules":              {[]Rule{from("10.1.0.0/16"), from("fd00::/8"), from("10.1.2.3", "fd00::1")}, 1, true},
		"every client, after one":           {[]Rule{from("0.0.0.0/0", "::/0"), hosts("a")}, reachable, false},
		"one client, after every":           {[]Rule{hosts("a"), {Sources: []string{"10.1.2.3"}, Hosts: []string{"a"}}}, 0, false},
		"client on a listener":              {[]Rule{{Listeners: []string{"tcp.a"}, Sources: []string{"10.0.0.0/8"}}, {Listeners: []string{"tcp.a"}, Sources: []string{"10.1.2.3"}, Ports: []string{"22"}}}, 0, false},
		"client on another listener":        {[]Rule{{Listeners: []string{"tcp.a"}, Sources: []string{"10.0.0.0/8"}}, {Sources: []string{"10.1.2.3"}}}, reachable, false},
		"user":                              {[]Rule{of("alice", "bob"), {Users: []string{"bob"}, Hosts: []string{"a"}}}, 0, false},
		"another user":                      {[]Rule{of("alice"), of("Alice")}, reachable, false},
		"users of two rules":                {[]Rule{of("alice"), of("bob"), of("bob", "alice")}, 1, true},
		"nobody, after some users":          {[]Rule{of("alice", "bob"), {}}, reachable, false},
		"one user, after everybody":         {[]Rule{hosts("a"), {Users: []string{"alice"}, Hosts: []string{"a"}}}, 0, false},
		"user from a client's network":      {[]Rule{from("10.0.0.0/8"), {Users: []string{"alice"}, Sources: []string{"10.1.2.3"}}}, 0, false},
		"client of a user":                  {[]Rule{of("alice"), {Users: []string{"alice"}, Sources: []string{"10.1.2.3"}}}, 0, false},
		"host of the wrong listener's rule": {[]Rule{{Listeners: []string{"tcp.a"}, Hosts: []string{"*.corp"}}, {Listeners: []string{"tcp.b"}, Hosts: []string{"db.corp"}}}, reachable, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			last := len(tt.rules) - 1
			var want []Hidden
			if tt.by != reachable {
				want = []Hidden{{Rule: last, By: tt.by, Alone: !tt.others}}
			}
			got := FindHidden(tt.rules)
			got = slices.DeleteFunc(got, func(h Hidden) bool { return h.Rule != last })
			if !slices.Equal(got, want) {
				t.Errorf("got %+v, want %+v", got, want)
			}
		})
	}
}
