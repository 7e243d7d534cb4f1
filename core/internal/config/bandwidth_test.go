package config

import (
	"testing"

	"github.com/tunneld/tunneld/internal/schema"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// TestBandwidth: listeners, routes and upstreams of every type have the block, and a plugin
// is given neither it nor another hash.
func TestBandwidth(t *testing.T) {
	cfg, diags := parseText(t, `
upstream "acme" "a" {
  url = "u"
  bandwidth {
    up         = "1MiB"
    down       = "2MB"
    total_up   = "3GiB"
    total_down = 4096
  }
}
upstream "acme" "b" { url = "u" }
upstream "direct" "c" {
  bandwidth { total_down = "1KiB" }
}
listener "tcp" "l" {
  address = "127.0.0.1:0"
  target  = "label"
  bandwidth { down = "64KiB" }
}
route "r" {
  upstreams = [upstream.acme.a, upstream.acme.b, upstream.direct.c]
  bandwidth { up = "0B" }
}
`)
	diags = append(diags, cfg.DecodeUpstreams(map[string]PluginSchema{"acme": {Block: acme, CommonNames: 1}})...)
	if len(diags) != 1 || !diags[0].Warning { // of a, whose total is less
		t.Fatal(printed(t, diags))
	}
	for what, have := range map[string][2]Bandwidth{
		"acme.a":   {cfg.Upstreams[0].Common.Bandwidth, {Up: 1 << 20, Down: 2e6, TotalUp: 3 << 30, TotalDown: 4096}},
		"acme.b":   {cfg.Upstreams[1].Common.Bandwidth, {}},
		"direct.c": {cfg.Upstreams[2].Common.Bandwidth, {TotalDown: 1024}},
		"listener": {cfg.Listeners[0].Bandwidth, {Down: 64 << 10}},
		"route":    {cfg.Routes[0].Bandwidth, {}},
	} {
		if have[0] != have[1] {
			t.Errorf("%s: %+v, want %+v", what, have[0], have[1])
		}
	}
	if a, b := cfg.Upstreams[0], cfg.Upstreams[1]; string(a.JSON) != string(b.JSON) {
		t.Errorf("the plugin is given %s, not %s", a.JSON, b.JSON)
	}
	if common := cfg.Upstreams[0].Wire().GetCommon(); common != nil {
		t.Errorf("the plugin is given %v", common)
	}
	own := &pluginv1.Block{Attributes: []*pluginv1.Attribute{{Name: "bandwidth", Type: schema.Text}}}
	if err := (PluginSchema{Block: own, CommonNames: schema.CommonTable()}).Check(); err == nil {
		t.Error("a plugin may have the name for its own")
	}
}
