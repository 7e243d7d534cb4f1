package tunnel

import "testing"

func TestShown(t *testing.T) {
	for want, target := range map[string]Target{
		"db.corp:5432":   {"db.corp", 5432},
		"label":          {Host: "label"},
		"[fd00::1]:5432": {"fd00::1", 5432},
		"bücher.example:80 (xn--bcher-kva.example:80)": {"xn--bcher-kva.example", 80},
	} {
		if got := target.Shown(); got != want {
			t.Errorf("%v: %q, want %q", target, got, want)
		}
	}
}
