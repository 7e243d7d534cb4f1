package route

import (
	"strings"
	"testing"
)

func TestHost(t *testing.T) {
	for _, in := range []string{"db", "db.corp", "DB.Corp.", "*.corp", "*", "db-?.corp", "10.0.0.0/8", "10.1.2.3", "fd00::1", "fd00::/8", "::ffff:10.0.0.0/104", "0.0.0.0/0", "10.0.0.*", "_x.y", "ü", "bücher.example.", "*.bücher.example"} {
		if problem := checkHost(in); problem != "" {
			t.Errorf("%q: %s", in, problem)
		}
	}
	for _, in := range []string{"", ".", ".corp", "a..b", "a b", "db:5", "[::1]", "10.0.0.1/8", "10.0.0.0/33", "x/8", "*.corp/8", "bü*.example", "ü b", "*.ü_b", "http://a", "::ffff:0:0/90", "a\n"} {
		if problem := checkHost(in); problem == "" {
			t.Errorf("%q is taken", in)
		}
	}
}

// FuzzHost: a pattern that is taken can be matched, and holds no port, bracket or
// space.
func FuzzHost(f *testing.F) {
	for _, s := range []string{"*.corp", "db", "db.", "10.0.0.0/8", "fd00::/8", "::ffff:10.0.0.1", "a b", "[::1]", "a:1", "..", "?", "fe80::1%eth0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if checkHost(s) == "" && (s == "" || strings.ContainsAny(s, " []\n\t\"") || len(s) > 300) {
			t.Errorf("%q is taken", s)
		}
	})
}
