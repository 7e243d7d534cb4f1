package cidr

import (
	"net/netip"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for in, want := range map[string]string{
		"10.1.2.3":            "10.1.2.3/32",
		"10.0.0.0/8":          "10.0.0.0/8",
		"fd00::1":             "fd00::1/128",
		"fd00::/8":            "fd00::/8",
		"::ffff:10.1.2.3":     "10.1.2.3/32",
		"::ffff:10.0.0.0/104": "10.0.0.0/8",
		"::ffff:0.0.0.0/96":   "0.0.0.0/0",
		"0.0.0.0/0":           "0.0.0.0/0",
		"::/0":                "::/0",
	} {
		if p, problem := Parse(in); problem != "" || p.String() != want {
			t.Errorf("%q is %s, want %s: %s", in, p, want, problem)
		}
	}
	for in, want := range map[string]string{
		"":               "Write an IP address",
		"db.corp":        "Write an IP address",
		"10.*":           "Write an IP address",
		"10.1.2.3:80":    "Write an IP address",
		"[::1]":          "Write an IP address",
		"fe80::1%eth0":   "Write an IP address",
		"db.corp/8":      "A CIDR is",
		"10.0.0.0/33":    "A CIDR is",
		"10.0.0.0/8 ":    "A CIDR is",
		"fe80::%eth0/64": "A CIDR is",
		"10.0.0.1/8":     "only zeros",
		"::ffff:0:0/90":  "at least 96",
	} {
		if p, problem := Parse(in); p.IsValid() || !strings.Contains(problem, want) {
			t.Errorf("%q is %s, want a problem with %q: %s", in, p, want, problem)
		}
	}
}

func TestOf(t *testing.T) {
	for in, want := range map[string]string{"10.1.2.3": "10.1.2.3/32", "::ffff:10.1.2.3": "10.1.2.3/32", "fe80::1%lo": "fe80::1/128"} {
		if got := Of(netip.MustParseAddr(in)).String(); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}

// FuzzParse: what is taken is a network in its one form, which is read as the same again.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"10.1.2.3", "10.0.0.0/8", "fd00::/8", "::ffff:10.0.0.0/104", "::ffff:0:0/90", "fe80::1%lo", "", "/"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, problem := Parse(s)
		if (problem == "") != p.IsValid() {
			t.Fatalf("%q: %s, %q", s, p, problem)
		}
		if problem != "" {
			return
		}
		again, problem := Parse(p.String())
		if problem != "" || again != p || p.Masked() != p || p.Addr().Is4In6() {
			t.Errorf("%q: %s, and then %s: %s", s, p, again, problem)
		}
	})
}
