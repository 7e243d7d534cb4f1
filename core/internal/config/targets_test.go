package config

import (
	"strings"
	"testing"

	"github.com/tunneld/tunneld/core/internal/auth"
	"github.com/tunneld/tunneld/core/internal/route"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// TestLabels: a target without a port needs an upstream that takes one, in the route
// that its connections can take.
func TestLabels(t *testing.T) {
	schemas := map[string]PluginSchema{
		"port":  {Block: &pluginv1.Block{Targets: pluginv1.Targets_TARGETS_PORT}},
		"label": {Block: &pluginv1.Block{Targets: pluginv1.Targets_TARGETS_LABEL}},
		"old":   {Block: &pluginv1.Block{}},
	}
	const blocks = `
upstream "port" "u" {}
upstream "label" "u" {}
upstream "old" "u" {}
upstream "direct" "u" {}
listener "tcp" "l" {
  address = "127.0.0.1:0"
  target  = "db"
}
`
	route := func(name, match, upstreams string) string {
		return "route \"" + name + "\" {\n match {\n" + match + "\n}\n upstreams = [" + upstreams + "]\n}\n"
	}
	const port, label, old, direct = "upstream.port.u", "upstream.label.u", "upstream.old.u", "upstream.direct.u"
	for name, c := range map[string]struct {
		routes, told string
	}{
		"needs a port":             {route("a", "", port), `route "a"`},
		"direct":                   {route("a", "", direct), `route "a"`},
		"both":                     {route("a", "", port+", "+direct), `route "a"`},
		"takes labels":             {route("a", "", label), ""},
		"one of two":               {route("a", "", port+", "+label), ""},
		"does not say":             {route("a", "", old), ""},
		"another listener's":       {`listener "tcp" "m" { address = "127.0.0.1:0" ` + "\n}\n", ""},
		"another host's":           {route("a", `hosts = ["x"]`, port) + route("b", "", label), ""},
		"a port's":                 {route("a", `ports = [1]`, port) + route("b", "", label), ""},
		"after the one that is it": {route("a", `hosts = ["db"]`, label) + route("b", "", port), ""},
		"for some clients":         {route("a", `sources = ["10.0.0.0/8"]`, label) + route("b", "", port), `route "b"`},
		"for users, of nobody":     {route("a", `users = ["alice"]`, port) + route("b", "", label), ""},
		"for nobody, beside users": {route("a", `users = ["alice"]`, label) + route("b", "", port), `route "b"`},
		"for these clients":        {route("a", `sources = ["10.0.0.0/8"]`, port) + route("b", "", label), `route "a"`},
	} {
		cfg, _ := parseText(t, blocks+c.routes)
		got := printed(t, cfg.DecodeUpstreams(schemas))
		switch {
		case c.told == "" && got != "":
			t.Errorf("%s: %s", name, got)
		case c.told != "" && (!strings.Contains(got, "Error: The target has no port\n  on main.hcl line 8") || !strings.Contains(got, c.told)):
			t.Errorf("%s: %s", name, got)
		}
	}
}

// TestMayTakeUsers: a route for certain users may take connections only where clients show
// who they are.
func TestMayTakeUsers(t *testing.T) {
	r := Route{Match: route.Rule{Users: []string{"alice"}}}
	for _, asks := range []bool{true, false} {
		l := Listener{Kind: "http", Name: "l"}
		if asks {
			l.Auth = auth.NewOptions(map[string]string{"alice": "x"}, "")
		}
		if got := mayTake(r, l); got != asks {
			t.Errorf("clients are asked: %v; it may take one: %v", asks, got)
		}
	}
}
