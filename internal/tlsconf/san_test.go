package tlsconf

import (
	"net/url"
	"strings"
	"testing"
)

// sanOf reads a name as one of a certificate.
func sanOf(s string) (san, bool) {
	if u, err := url.Parse(s); err == nil && u.Scheme != "" {
		return uriName(u)
	}
	if strings.Contains(s, "@") {
		return emailName(s)
	}
	return dnsName(s)
}

func TestPatterns(t *testing.T) {
	for pattern, names := range map[string]string{ // + matches, - does not
		"web.corp":        "+web.corp +WEB.Corp +web.corp. -web.corp2 -aweb.corp -a.web.corp -web -web@corp -spiffe://web.corp",
		"WEB.corp.":       "+web.corp",
		"*.corp":          "+a.corp -*.corp -a*b.corp -a/b.corp -corp -.corp -a.b.corp -a.corp.evil",
		"web-*.corp":      "+web-1.corp -web-.corp -web-a.b.corp",
		"*.*.corp":        "+a.b.corp -b.corp -a.b.c.corp",
		"a*c*e.corp":      "+abcde.corp +abccde.corp -acce.corp -ace.corp -abcd.corp",
		"bücher.corp":     "+xn--bcher-kva.corp -bücher.corp",
		"*@corp.example":  "+alice@corp.example +a.b+c@CORP.example -alice@a.corp.example -a@b@corp.example -corp.example -@corp.example",
		"alice@*.corp":    "+alice@a.corp -Alice@a.corp -alice@a.b.corp -alice@corp -alice@x@a.corp -alice@*.corp",
		"*-ops@corp":      "+x-ops@corp -ops@corp -x-ops@corp.evil",
		"spiffe://td/web": "+spiffe://td/web +SPIFFE://TD/web -spiffe://td/Web -spiffe://td/web/ -spiffe://td/web/x -spiffe://td/web?x -https://td/web -td",
		"spiffe://td/ns/*/sa/*": "+spiffe://td/ns/a/sa/b +spiffe://td/ns/a/sa/b%20c -spiffe://td/ns/a/sa/ -spiffe://td/ns//sa/b -spiffe://td/ns/a/sa/b/c " +
			"-spiffe://td/ns/a/x/sa/b -spiffe://td/ns/a%2Fx/sa/b -spiffe://td/ns/a%252fx/sa/b -spiffe://td/ns/a/sa/.. -spiffe://td/ns/a/sa/%2e%2E " +
			"-spiffe://td/ns/a/sa/%252e. -spiffe://td/ns/./sa/b -spiffe://td/ns/%2e/sa/b -spiffe://td/ns/a/sa/. -spiffe://td/ns/a%3Fb/sa/b -spiffe://td/ns/a%23b/sa/b -spiffe://td/ns/a%00/sa/b -spiffe://td/ns/a%5Cb/sa/b +spiffe://td/ns/.a/sa/b. -spiffe://td/ns/a/sa/b?q -spiffe://td/ns/a/sa/b#f -spiffe://td2/ns/a/sa/b -spiffe://user@td/ns/a/sa/b",
		"spiffe://*.td/x":   "+spiffe://a.td/x -spiffe://a.b.td/x -spiffe://td/x -spiffe://a:1.td/x -spiffe://x/a.td/x",
		"https://h:8443/*":  "+https://h:8443/a -https://h/a",
		"urn:uuid:*":        "+urn:uuid:123 +URN:uuid:1 -urn:oid:1 -urn:uuid:",
		"spiffe://td":       "+spiffe://td -spiffe://td/ -spiffe://td/a",
		"a.b.c.d.e.f.g.h.i": "+a.b.c.d.e.f.g.h.i -a.b.c.d.e.f.g.h",
	} {
		p, err := parseSAN(pattern)
		if err != nil {
			t.Errorf("%s: %v", pattern, err)
			continue
		}
		for _, name := range strings.Fields(names) {
			want := name[0] == '+'
			n, ok := sanOf(name[1:])
			if got := ok && p.matches(n); got != want {
				t.Errorf("%s, %s: %v, want %v", pattern, name, got, want)
			}
		}
	}
}

func TestNoPatterns(t *testing.T) {
	for pattern, want := range map[string]string{
		"":                        "one label",
		"*":                       "leave allow_san out",
		"**":                      "leave allow_san out",
		"a.**":                    "two *",
		"a.?":                     "only sign",
		"[ab].corp":               "only sign",
		"a..corp":                 "empty",
		".corp":                   "empty",
		"a b":                     "neither a DNS name",
		"a/b":                     "neither a DNS name",
		"bü*.corp":                "beyond ASCII has no *",
		"ü_b.corp":                "no name of a host",
		"10.0.0.1":                "IP addresses are not compared",
		"::1":                     "IP addresses are not compared",
		"web.corp:443":            "no port",
		"@corp":                   "no mailbox",
		"a@b@corp":                "no mailbox",
		"a b@corp":                "no mailbox",
		"a@corp/x":                "neither a DNS name",
		"a@":                      "empty",
		"spiffe://":               "no URI",
		"*://td/x":                "scheme of a URI has no *",
		"spi*fe://td/x":           "scheme of a URI has no *",
		"spiffe://td/ü":           "percent-encoded",
		"spiffe://td/a b":         "percent-encoded",
		"spiffe://td/../x":        "matches nothing",
		"spiffe://td/%2e%2e":      "matches nothing",
		"spiffe://td/a%2fb":       "matches nothing",
		"spiffe://user@td/a":      "matches nothing",
		strings.Repeat("x", 3000): "longer than",
	} {
		if p, err := parseSAN(pattern); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40s: %v, %v; want %s", pattern, p, err, want)
		}
	}
}

// FuzzGlob compares with a matcher that tries everything.
func FuzzGlob(f *testing.F) {
	f.Add("a*c*e", "abcde", ".")
	f.Add("*.b", "a.b", ".")
	f.Add("*a*/b", "aa/b", "/")
	f.Fuzz(func(t *testing.T, pattern, s, stops string) {
		if len(pattern) > 12 || len(s) > 12 || strings.Contains(pattern, "**") {
			return
		}
		if got, want := glob(pattern, s, stops), slowGlob(pattern, s, stops+"\x00"); got != want {
			t.Errorf("%q, %q, stops %q: %v, want %v", pattern, s, stops, got, want)
		}
	})
}

func slowGlob(pattern, s, stops string) bool {
	switch {
	case pattern == "":
		return s == ""
	case s == "":
		return false
	case pattern[0] != '*':
		return pattern[0] == s[0] && slowGlob(pattern[1:], s[1:], stops)
	}
	for i := 0; i < len(s) && strings.IndexByte(stops, s[i]) < 0; i++ {
		if slowGlob(pattern[1:], s[i+1:], stops) {
			return true
		}
	}
	return false
}
