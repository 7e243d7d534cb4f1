package schema

import "testing"

func TestSuggest(t *testing.T) {
	names := []string{"address", "target", "max_connections", "tcp", "token", "url"}
	for in, want := range map[string]string{
		"adress": "address", "adderss": "address", "ADDRESS": "address", "traget": "target", "tpc": "tcp",
		"max_conections": "max_connections", "max_conn": "max_connections", "xyz": "", "u": "", "": "", "tokens": "token",
	} {
		if got := Suggest(in, names); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}
