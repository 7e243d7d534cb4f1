package config

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tunneld/tunneld/internal/schema"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// TestTablesAreSane: what is asked of a plugin's schema holds for the language's own.
func TestTablesAreSane(t *testing.T) {
	all := Tables()
	delete(all, "route") // has attributes without a type
	for name, table := range all {
		if err := schema.Check(table); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestCommonAttributes: every upstream has them, whatever its type; its plugin is
// given neither them nor another hash.
func TestCommonAttributes(t *testing.T) {
	cfg, diags := parseText(t, `
upstream "acme" "a" {
  url             = "u"
  max_connections = 7
  half_close      = "0s"
}
upstream "acme" "b" { url = "u" }
upstream "direct" "c" {
  max_connections = 0
  half_close      = "1500ms"
}
upstream "direct" "d" {}
listener "tcp" "l" {
  address = "127.0.0.1:0"
  target  = "label"
}
route "r" { upstreams = [upstream.acme.a, upstream.acme.b, upstream.direct.c, upstream.direct.d] }
`)
	diags = append(diags, cfg.DecodeUpstreams(map[string]PluginSchema{"acme": {Block: acme, CommonNames: 1}})...)
	if len(diags) > 0 {
		t.Fatal(printed(t, diags))
	}
	seven, zero, none, wait := 7, 0, time.Duration(0), 1500*time.Millisecond
	for i, want := range []Common{{&seven, &none}, {}, {&zero, &wait}, {}} {
		if got := cfg.Upstreams[i].Common; !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v", cfg.Upstreams[i].ID(), got)
		}
	}
	if a, b := string(cfg.Upstreams[0].JSON), string(cfg.Upstreams[1].JSON); a != b {
		t.Errorf("the plugin is given %s, not %s", a, b)
	}
	// What the block says counts, and then the plugin's default.
	d := &pluginv1.CommonDefaults{MaxConnections: proto.Uint32(100), HalfClose: durationpb.New(time.Second)}
	hundred, second := 100, time.Second
	if got := cfg.Upstreams[0].Common.Or(d); !reflect.DeepEqual(got, Common{&seven, &none}) {
		t.Errorf("what is given became %v", got)
	}
	if got := cfg.Upstreams[1].Common.Or(d); !reflect.DeepEqual(got, Common{&hundred, &second}) {
		t.Errorf("what is not given became %v", got)
	}
	if got := cfg.Upstreams[1].Common.Or(nil); !reflect.DeepEqual(got, Common{}) {
		t.Errorf("without a default it became %v", got)
	}
}

func TestCommonAttributesThatAreWrong(t *testing.T) {
	for _, kind := range []string{"acme", "direct"} {
		cfg, diags := parseText(t, `upstream "`+kind+`" "a" {
  max_connections = -1
  half_close      = "1us"
}
`)
		got := printed(t, append(diags, cfg.DecodeUpstreams(map[string]PluginSchema{"acme": {Block: &pluginv1.Block{}}})...))
		for _, want := range []string{
			"line 2", `"max_connections" is out of range`, "It must lie between 0 and",
			"line 3", `"half_close" is out of range`, `at least "1ms"`,
		} {
			if !strings.Contains(got, want) {
				t.Errorf("%s: %q is not in\n%s", kind, want, got)
			}
		}
	}
}

// TestCommonNameInASchema: a plugin that was built before the name was the
// daemon's keeps it, and one that was built since is refused.
func TestCommonNameInASchema(t *testing.T) {
	spec := &pluginv1.Block{Attributes: []*pluginv1.Attribute{schema.Attr("half_close", schema.Text, ``)}}
	const source = `
upstream "acme" "a" { half_close = "whenever" }
upstream "acme" "b" { max_connections = 3 }
`
	decode := func(table uint32) (*Config, string) {
		cfg, _ := parseText(t, source)
		return cfg, printed(t, cfg.DecodeUpstreams(map[string]PluginSchema{"acme": {Block: spec, CommonNames: table}}))
	}
	cfg, got := decode(0)
	if strings.Count(got, "Warning:") != 1 || strings.Contains(got, "Error:") || !strings.Contains(got, `The plugin "acme" has a "half_close" of its own`) {
		t.Errorf("an old plugin: %s", got)
	}
	if json := string(cfg.Upstreams[0].JSON); json != `{"half_close":"whenever"}` || cfg.Upstreams[0].Common.HalfClose != nil {
		t.Errorf("its value became %s and %v", json, cfg.Upstreams[0].Common)
	}
	if n := cfg.Upstreams[1].Common.MaxConnections; n == nil || *n != 3 {
		t.Errorf("the other name became %v", n)
	}
	if _, got := decode(1); !strings.Contains(got, `Error: The plugin "acme" has a broken schema`) || !strings.Contains(got, `"half_close": every upstream has an attribute of this name, which is the daemon's`) {
		t.Errorf("a new plugin: %s", got)
	}
}
