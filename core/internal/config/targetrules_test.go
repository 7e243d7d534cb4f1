package config

import (
	"slices"
	"testing"

	"github.com/tunneld/tunneld/core/internal/listen"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// TestTargetNotes: there is a note where the default applies and the block does not say that
// its author knows.
func TestTargetNotes(t *testing.T) {
	cfg, diags := parseText(t, `
upstream "direct" "a" {}
upstream "direct" "b" { via = "http://proxy.corp:3128" }
upstream "acme" "c" {}
listener "socks5" "plain" { address = "127.0.0.1:1" }
listener "http" "behind_a_proxy" { address = "127.0.0.1:2" }
listener "http" "elsewhere" { address = "127.0.0.1:3" }
listener "tcp" "fixed" {
  address = "127.0.0.1:4"
  target  = "127.0.0.1:22"
}
listener "socks5" "allow" {
  address       = "127.0.0.1:5"
  allow_targets = []
}
listener "socks5" "deny" {
  address      = "127.0.0.1:6"
  deny_targets = []
}
route "elsewhere" {
  match { listeners = [listener.http.elsewhere] }
  upstreams = [upstream.acme.c]
}
route "behind_a_proxy" {
  match {
    listeners = [listener.http.behind_a_proxy]
    hosts     = ["*.corp"]
    ports     = [443]
    sources   = ["10.0.0.0/8"]
  }
  upstreams = [upstream.acme.c, upstream.direct.b]
}
route "rest" {
  match { listeners = [listener.socks5.plain, listener.tcp.fixed, listener.socks5.allow, listener.socks5.deny] }
  upstreams = [upstream.direct.a]
}
`)
	if len(diags) > 0 {
		t.Fatal(printed(t, diags))
	}
	var noted []string
	notes := cfg.TargetNotes()
	for _, n := range notes {
		if !n.Warning || !n.Note || n.Line == 0 {
			t.Errorf("%+v", n)
		}
		noted = append(noted, n.Block)
	}
	if want := []string{`listener "socks5" "plain"`, `listener "http" "behind_a_proxy"`}; !slices.Equal(noted, want) {
		t.Errorf("notes for %q, want %q\n%s", noted, want, printed(t, notes))
	}
}

// TestEveryKindSaysWhoNamesTheTarget: a kind with a target has it from the configuration, and
// all others from their clients.
func TestEveryKindSaysWhoNamesTheTarget(t *testing.T) {
	for _, k := range listen.Kinds() {
		fixed := slices.ContainsFunc(k.Attributes, func(a *pluginv1.Attribute) bool { return a.GetName() == "target" })
		if fixed == k.NamesTarget {
			t.Errorf("kind %s: has a target %v, its clients name one %v", k.Name, fixed, k.NamesTarget)
		}
	}
}
