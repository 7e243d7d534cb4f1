package route

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/tunneld/tunneld/core/internal/tunnel"
)

func TestFind(t *testing.T) {
	rules := []Rule{
		0:  {Listeners: []string{"tcp.orders"}, Ports: []string{"5432"}},
		1:  {Hosts: []string{"*.corp", "db.Example."}, Ports: []string{"1-1023", "9000-9100"}},
		2:  {Hosts: []string{"10.0.0.0/8", "fd00::/8"}},
		3:  {Hosts: []string{"db-?.*.example"}},
		4:  {Listeners: []string{"socks5.apps"}, Hosts: []string{"*"}},
		5:  {Hosts: []string{"::ffff:192.168.0.0/112", "192.168.9.9"}},
		6:  {Hosts: []string{"*.corp"}},
		7:  {Sources: []string{"10.1.0.0/16", "fd00::/8"}, Hosts: []string{"*.lan"}},
		8:  {Sources: []string{"10.0.0.0/8", "::ffff:192.0.2.1"}, Hosts: []string{"*.lan"}, Ports: []string{"22"}},
		10: {Hosts: []string{"BÜCHER.example", "*.bücher.example."}},
		9:  {Listeners: []string{"tcp.x"}, Sources: []string{"192.0.2.1", "192.0.2.0/24"}},
	}
	tests := []struct {
		name, listener, host string
		port                 uint16
		want                 int
		source               string
	}{
		{"listener and port", "tcp.orders", "anything", 5432, 0, ""},
		{"listener alone is not enough", "tcp.orders", "anything", 5433, -1, ""},
		{"glob", "tcp.x", "db.corp", 443, 1, ""},
		{"glob spans labels", "tcp.x", "a.b.corp", 443, 1, ""},
		{"glob needs a label", "tcp.x", ".corp", 443, -1, ""},
		{"glob is no suffix of a name", "tcp.x", "xcorp", 443, -1, ""},
		{"port range start", "tcp.x", "a.corp", 9000, 1, ""},
		{"port range end", "tcp.x", "a.corp", 9100, 1, ""},
		{"past the range falls to a later rule", "tcp.x", "a.corp", 9101, 6, ""},
		{"case and trailing dot", "tcp.x", "DB.EXAMPLE.", 443, 1, ""},
		{"name beyond ASCII", "tcp.x", "xn--bcher-kva.example", 443, 10, ""},
		{"glob beyond ASCII", "tcp.x", "Db.XN--bcher-kva.example.", 443, 10, ""},
		{"cidr", "tcp.x", "10.200.0.1", 1, 2, ""},
		{"ipv4-mapped is ipv4", "tcp.x", "::ffff:10.1.2.3", 1, 2, ""},
		{"cidr v6", "tcp.x", "fd12::1", 1, 2, ""},
		{"cidr matches literals only", "tcp.x", "10.0.0.1.nip.example", 1, -1, ""},
		{"glob with question mark", "tcp.x", "db-1.eu.example", 1, 3, ""},
		{"question mark is one", "tcp.x", "db-12.eu.example", 1, -1, ""},
		{"star for one listener", "socks5.apps", "whatever", 1, 4, ""},
		{"earlier rule of all listeners wins", "socks5.apps", "10.1.1.1", 1, 2, ""},
		{"mapped cidr", "tcp.x", "192.168.0.1", 1, 5, ""},
		{"literal as name", "tcp.x", "192.168.9.9", 1, 5, ""},
		{"outside of the mapped cidr", "tcp.x", "192.169.0.1", 1, -1, ""},
		{"nothing", "tcp.x", "example.org", 1, -1, ""},
		{"network of the client", "tcp.x", "a.lan", 22, 7, "10.1.2.3"},
		{"wider network of the client", "tcp.x", "a.lan", 22, 8, "10.2.2.3"},
		{"client and another port", "tcp.x", "a.lan", 23, -1, "10.2.2.3"},
		{"client of IPv6", "tcp.x", "a.lan", 23, 7, "fd12::1"},
		{"client with a zone", "tcp.x", "a.lan", 23, 7, "fd12::1%lo"},
		{"client as IPv6", "tcp.x", "a.lan", 23, 7, "::ffff:10.1.2.3"},
		{"client of a mapped address", "socks5.x", "a.lan", 22, 8, "192.0.2.1"},
		{"client and listener", "tcp.x", "example.org", 1, 9, "192.0.2.77"},
		{"client of another listener", "socks5.x", "example.org", 1, -1, "192.0.2.77"},
		{"client from elsewhere", "tcp.x", "a.lan", 22, -1, "11.1.2.3"},
		{"no client's address", "tcp.x", "a.lan", 22, -1, ""},
	}
	table := New(rules)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			source, _ := netip.ParseAddr(tt.source) // not of all
			got, ok := table.Find(Connection{Listener: tt.listener, Source: source, Target: tunnel.Target{Host: tt.host, Port: tt.port}})
			if !ok {
				got = -1
			}
			if got != tt.want {
				t.Errorf("Find(%s, %s:%d) = %d, want %d", tt.listener, tt.host, tt.port, got, tt.want)
			}
		})
	}
}

// TestFindUser: a rule with users takes these alone, by their very names, and a client that
// is nobody matches none of them.
func TestFindUser(t *testing.T) {
	table := New([]Rule{
		0: {Users: []string{"alice", "spiffe://corp/orders"}, Sources: []string{"10.0.0.0/8"}},
		1: {Users: []string{"Alice"}, Listeners: []string{"socks5.a"}},
		2: {Users: []string{"bob", "alice"}, Hosts: []string{"db.corp"}},
		3: {Hosts: []string{"open.corp"}},
	})
	for _, tt := range []struct {
		user, source, host string
		want               int
	}{
		{"alice", "10.1.2.3", "db.corp", 0},
		{"alice", "11.1.2.3", "db.corp", 2},
		{"Alice", "10.1.2.3", "db.corp", 1},
		{"ALICE", "10.1.2.3", "db.corp", -1},
		{"spiffe://corp/orders", "10.1.2.3", "x", 0},
		{"spiffe://corp/orders/", "10.1.2.3", "x", -1},
		{"bob", "10.1.2.3", "db.corp", 2},
		{"bob ", "10.1.2.3", "db.corp", -1},
		{"", "10.1.2.3", "db.corp", -1},
		{"", "10.1.2.3", "open.corp", 3},
		{"carol", "10.1.2.3", "open.corp", 3},
	} {
		got, ok := table.Find(Connection{Listener: "socks5.a", Source: netip.MustParseAddr(tt.source), User: tt.user, Target: tunnel.Target{Host: tt.host, Port: 1}})
		if !ok {
			got = -1
		}
		if got != tt.want {
			t.Errorf("%q from %s to %s: route %d, want %d", tt.user, tt.source, tt.host, got, tt.want)
		}
	}
}

func TestNoMatchBlockMatchesAll(t *testing.T) {
	n, ok := New([]Rule{{}}).Find(Connection{Listener: "tcp.a", Target: tunnel.Target{Host: "label"}})
	if n != 0 || !ok {
		t.Fatalf("Find = %d, %v", n, ok)
	}
	if _, ok := New(nil).Find(Connection{Listener: "tcp.a", Target: tunnel.Target{Host: "label"}}); ok {
		t.Fatal("an empty table found a rule")
	}
}

// TestGlobTakesNoAddress: no glob matches an IP literal, however it is spelled,
// and the address and its network do.
func TestGlobTakesNoAddress(t *testing.T) {
	globs := []string{"*", "?*", "*.corp", "*1", "1*", "10.*", "*.0.0.1", "??.0.0.1", "::*", "fe80*", "*%*", "*%a.corp"}
	for _, tt := range []struct{ target, address, network string }{
		{"10.0.0.1", "10.0.0.1", "10.0.0.0/8"},
		{"10.0.0.1.", "10.0.0.1", "10.0.0.0/8"},
		{"::ffff:10.0.0.1", "10.0.0.1", "10.0.0.0/8"},
		{"::FFFF:a00:1", "10.0.0.1.", "::ffff:10.0.0.0/104"},
		{"::1", "0:0:0::1", "::/64"},
		{"FD00:0::1", "fd00::1", "fd00::/8"},
		{"::1%a.corp", "::1%a.corp", "::/64"},
		{"fe80::1%1.corp", "FE80::1%1.corp", "fe80::/10"},
	} {
		for _, glob := range globs {
			if _, ok := New([]Rule{{Hosts: []string{glob}}}).Find(Connection{Listener: "tcp.a", Target: tunnel.Target{Host: tt.target, Port: 1}}); ok {
				t.Errorf("%s matches %s", glob, tt.target)
			}
		}
		for _, host := range []string{tt.address, tt.network} {
			if _, ok := New([]Rule{{Hosts: append(globs, host)}}).Find(Connection{Listener: "tcp.a", Target: tunnel.Target{Host: tt.target, Port: 1}}); !ok {
				t.Errorf("%s does not match %s", host, tt.target)
			}
		}
	}
	// A label is a name, of whatever it is made.
	for _, glob := range []string{"*", "54*", "5432"} {
		if _, ok := New([]Rule{{Hosts: []string{glob}}}).Find(Connection{Listener: "tcp.a", Target: tunnel.Target{Host: "5432"}}); !ok {
			t.Errorf("%s does not match the label", glob)
		}
	}
}

func FuzzGlob(f *testing.F) {
	f.Add("*.corp", "a.corp")
	f.Add("a*b?c", "aXXbYc")
	f.Fuzz(func(t *testing.T, pattern, s string) {
		got := glob(pattern, s)
		if !strings.ContainsAny(pattern, "*?") && got != (pattern == s) {
			t.Fatalf("glob(%q, %q) = %v", pattern, s, got)
		}
		if got && !glob(pattern+"*", s+"x") {
			t.Fatalf("glob(%q, %q) holds, but not with more at the end", pattern, s)
		}
	})
}
