package outbound

import "testing"

func TestNdots(t *testing.T) {
	for conf, want := range map[string]int{
		"":                                       1,
		"nameserver 10.0.0.1\noptions ndots:5\n": 5,
		"options timeout:1 ndots:3 rotate":       3,
		"options ndots:3\noptions ndots:0":       0,
		"options ndots:99":                       15,
		"options ndots:-1":                       0,
		"options ndots:many":                     1,
		"# options ndots:4\noptionsndots:4":      1,
	} {
		if got := ndots(conf); got != want {
			t.Errorf("%q: %d, want %d", conf, got, want)
		}
	}
}
