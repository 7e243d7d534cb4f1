package targets

import (
	"errors"
	"net/netip"
	"os"
	"strings"
	"testing"
)

func TestTexts(t *testing.T) {
	for _, tt := range []struct {
		deny, allow string
		host        string
		addresses   string
		full, hint  string
		brief       string
	}{
		{
			host: "127.0.0.1", addresses: "127.0.0.1",
			full:  "clients of listener.socks5.apps may not reach 127.0.0.1: a loopback address (127.0.0.0/8)",
			hint:  `to allow it, write allow_targets = ["127.0.0.1/32"] in listener.socks5.apps, and with it "0.0.0.0/0" and "::/0" if all else is to stay allowed`,
			brief: "clients of listener.socks5.apps may not reach 127.0.0.1: a loopback address",
		},
		{
			host: "localhost", addresses: "::1 127.0.0.1",
			full:  "clients of listener.socks5.apps may not reach localhost at ::1, the loopback address; 127.0.0.1, a loopback address (127.0.0.0/8)",
			hint:  `to allow it, write allow_targets = ["::1/128", "127.0.0.1/32"] in listener.socks5.apps, and with it "0.0.0.0/0" and "::/0" if all else is to stay allowed`,
			brief: "clients of listener.socks5.apps may not reach localhost: the loopback address; a loopback address",
		},
		{
			host: "far.test", addresses: "10.1.2.3", allow: "10.0.0.0/8",
			full:  "clients of listener.socks5.apps may not reach far.test at 10.1.2.3, an address of this machine",
			hint:  `to allow it, add "10.1.2.3/32" to allow_targets in listener.socks5.apps`,
			brief: "clients of listener.socks5.apps may not reach far.test: an address of this machine",
		},
		{
			host: "far.test", addresses: "11.0.0.1 11.0.0.2 10.1.2.3", allow: "10.0.0.0/8",
			full:  "clients of listener.socks5.apps may not reach far.test at 11.0.0.1, not in allow_targets; 11.0.0.2, not in allow_targets; 10.1.2.3, an address of this machine",
			hint:  `to allow it, add "11.0.0.1/32", "11.0.0.2/32" to allow_targets in listener.socks5.apps`,
			brief: "clients of listener.socks5.apps may not reach far.test: not in allow_targets; an address of this machine",
		},
		{
			host: "64:ff9b::a09:1", addresses: "64:ff9b::a09:1", deny: "10.0.0.0/8", allow: "::/0",
			full:  "clients of listener.socks5.apps may not reach 64:ff9b::a09:1: as 10.9.0.1 in 10.0.0.0/8 of deny_targets",
			hint:  "to allow it, take 10.0.0.0/8 out of deny_targets in listener.socks5.apps, or write smaller networks there",
			brief: "clients of listener.socks5.apps may not reach 64:ff9b::a09:1: in deny_targets",
		},
		{
			host: "far.test", addresses: "127.0.0.1 127.0.0.2 127.0.0.3 127.0.0.4 127.0.0.5 127.0.0.6 127.0.0.7 127.0.0.8 127.0.0.9 127.0.0.10", allow: "10.0.0.0/8",
			full:  "clients of listener.socks5.apps may not reach far.test at 127.0.0.1, not in allow_targets; 127.0.0.2, not in allow_targets; 127.0.0.3, not in allow_targets; 127.0.0.4, not in allow_targets; 127.0.0.5, not in allow_targets; 127.0.0.6, not in allow_targets; 127.0.0.7, not in allow_targets; 127.0.0.8, not in allow_targets; and 2 more",
			hint:  `to allow it, add "127.0.0.1/32", "127.0.0.2/32", "127.0.0.3/32", "127.0.0.4/32", "127.0.0.5/32", "127.0.0.6/32", "127.0.0.7/32", "127.0.0.8/32" to allow_targets in listener.socks5.apps`,
			brief: "clients of listener.socks5.apps may not reach far.test: not in allow_targets",
		},
	} {
		t.Run(tt.host+" of "+tt.addresses, func(t *testing.T) {
			p := New(Options{Listener: "listener.socks5.apps", Deny: parse(t, tt.deny), Allow: parse(t, tt.allow), Own: ownAre(t, machine)})
			var all []*Refusal
			for _, a := range strings.Fields(tt.addresses) {
				var refusal *Refusal
				if !errors.As(p.Check(netip.MustParseAddr(a)), &refusal) {
					t.Fatalf("%s is allowed", a)
				}
				all = append(all, refusal)
			}
			full, brief := Full(tt.host, all), Brief(tt.host, all)
			if full.Message != tt.full {
				t.Errorf("%s\nwant %s", full.Message, tt.full)
			}
			if full.Hint != tt.hint {
				t.Errorf("%s\nwant %s", full.Hint, tt.hint)
			}
			if brief.Message != tt.brief {
				t.Errorf("%s\nwant %s", brief.Message, tt.brief)
			}
			if hint := "whoever runs the proxy finds in its log what to write in listener.socks5.apps to allow it"; brief.Hint != hint {
				t.Errorf("%s\nwant %s", brief.Hint, hint)
			}
		})
	}
}

// TestTextsAreDocumented: the page has what each rule says, and what to do.
func TestTextsAreDocumented(t *testing.T) {
	page, err := os.ReadFile("../../../docs/troubleshooting.md")
	if err != nil {
		t.Fatal(err)
	}
	address := netip.MustParseAddr("10.1.2.3")
	network := netip.MustParsePrefix("10.0.0.0/8")
	for by, o := range map[rule]Options{denyTargets: {}, allowTargets: {Allow: []netip.Prefix{network}}, defaults: {}, unknown: {}} {
		o.Listener = "*listener*"
		r := &Refusal{Addr: address, policy: New(o), by: by, form: reading{addr: address}, network: network, what: metadataName, err: errors.New("*…*")}
		for _, text := range []string{r.why(), hint([]*Refusal{r})} {
			text = strings.NewReplacer("10.1.2.3/32", "*address*", network.String(), "*network*").Replace(text)
			text = strings.TrimSuffix(text, " (*network*)")
			if !strings.Contains(string(page), text) {
				t.Errorf("the page does not have %s", text)
			}
		}
	}
}

// TestDenialsAreDocumented: each is in the table of the page.
func TestDenialsAreDocumented(t *testing.T) {
	page, err := os.ReadFile("../../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(page), "\n### Where clients may go\n")
	if !found {
		t.Fatal("the page has no such section")
	}
	section, _, _ = strings.Cut(section, "\n### ")
	for _, d := range denials {
		written := d.network.String()
		if d.network.IsSingleIP() {
			written = d.network.Addr().String()
		}
		if !strings.Contains(section, "`"+written+"`") {
			t.Errorf("%s is denied by default, and the page does not say so", written)
		}
	}
}
