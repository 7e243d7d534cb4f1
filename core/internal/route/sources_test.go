package route

import "testing"

func TestSource(t *testing.T) {
	for _, in := range []string{"10.1.2.3", "10.0.0.0/8", "fd00::1", "fd00::/8", "::ffff:10.1.2.3", "::ffff:10.0.0.0/104", "0.0.0.0/0", "::/0"} {
		if problem := checkSource(in); problem != "" {
			t.Errorf("%q: %s", in, problem)
		}
	}
	for _, in := range []string{"", "db.corp", "*.corp", "10.*", "10.1.2.3:80", "[::1]", "10.0.0.1/8", "10.0.0.0/33", "::ffff:0:0/90", "fe80::1%eth0", "10.0.0.0/8 "} {
		if problem := checkSource(in); problem == "" {
			t.Errorf("%q is taken", in)
		}
	}
}
