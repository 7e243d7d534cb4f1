package config

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tunneld/tunneld/core/internal/auth"
)

// TestAuth: who may log in is read from the block, and from a file that it may name; a
// listener without the block asks nobody.
func TestAuth(t *testing.T) {
	file := filepath.Join(t.TempDir(), "users")
	if err := os.WriteFile(file, []byte("alice:$2y$04$bFVU/v9MeVzmCJHc6n3Lue4pPSnIeia/VWjLSBehAJ0L4S.lKsZdW\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	source := fmt.Sprintf(`
listener "socks5" "open" { address = "127.0.0.1:1080" }
listener "socks5" "users" {
  address = "127.0.0.1:1081"
  auth {
    users = { alice = %q, "jörg k" = "a:b" }
  }
}
listener "http" "file" {
  address = "127.0.0.1:3128"
  auth { htpasswd_file = %q }
}
listener "http" "both" {
  address = "127.0.0.1:3129"
  auth {
    users         = { alice = %[1]q }
    htpasswd_file = %[2]q
  }
}
upstream "direct" "d" {}
route "r" { upstreams = [upstream.direct.d] }
`, canary, file)
	cfg, diags := parseText(t, source)
	if len(diags) > 0 {
		t.Fatal(printed(t, diags))
	}
	guard := auth.NewGuard()
	ids := map[auth.ID]bool{}
	for i, want := range []struct {
		asks  bool
		users int // of the file
	}{{false, 0}, {true, 0}, {true, 1}, {true, 1}} {
		l := cfg.Listeners[i]
		if l.Auth.IsZero() == want.asks {
			t.Errorf("%s asks for a password: %v", l.ID(), !want.asks)
		}
		if n := guard.Realm(l.Auth).State().Users; n != want.users {
			t.Errorf("%s: %d users in its file", l.ID(), n)
		}
		ids[guard.ID(l.Auth)] = true
	}
	again, _ := parseText(t, source)
	if len(ids) != 4 || !ids[guard.ID(again.Listeners[3].Auth)] {
		t.Errorf("%d different ones", len(ids))
	}
	var all string
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
		all += fmt.Sprintf(verb, cfg.Listeners)
	}
	text, err := json.Marshal(cfg.Listeners)
	if err != nil {
		t.Fatal(err)
	}
	if p := leaked(all + string(text)); p != "" || strings.Contains(all, "bFVU") || strings.Contains(all, fmt.Sprintf("%x", canary)) {
		t.Errorf("%q of a password is printed: %s %s", p, all, text)
	}
}

// TestAuthGuardsAListener: one that others reach needs nothing else, whatever is in its
// file; where the block is wrong that is told, and no more.
func TestAuthGuardsAListener(t *testing.T) {
	for auth, want := range map[string]int{
		`users = { alice = "x" }`: 0, `htpasswd_file = "/no/such/file"`: 0, `users = { alice = "" }`: 1, `users = []`: 1, ``: 1,
	} {
		_, diags := parseText(t, "listener \"socks5\" \"a\" {\n  address = \"0.0.0.0:1\"\n  auth {\n"+auth+"\n}\n}\nroute \"r\" { upstreams = [upstream.direct.d] }\nupstream \"direct\" \"d\" {}\n")
		if got := printed(t, diags); strings.Count(got, "Error:") != want || strings.Contains(got, OpenSummary) {
			t.Errorf("%q:\n%s", auth, got)
		}
	}
	_, diags := parseText(t, "listener \"socks5\" \"a\" { address = \"0.0.0.0:1\" }\nlistener \"tcp\" \"b\" {\n  address = \"0.0.0.0:2\"\n  target = \"h:1\"\n}\n")
	if got := printed(t, diags); strings.Count(got, OpenSummary) != 2 || strings.Count(got, "auth { … }") != 1 {
		t.Errorf("without:\n%s", got)
	}
}

// TestChangedUsers: that they have is told, and nothing of them.
func TestChangedUsers(t *testing.T) {
	of := func(password string) *Config {
		cfg, diags := parseText(t, fmt.Sprintf("listener \"http\" \"a\" {\n  address = \"127.0.0.1:1\"\n  auth {\n    users = { a = %q }\n  }\n}\n", password))
		if diags.HasErrors() {
			t.Fatal(diags)
		}
		return cfg
	}
	if got := Changed(of("x"), of(canary), "listener.http.a"); len(got) != 1 || got[0] != "auth" {
		t.Errorf("changed: %q", got)
	}
}
