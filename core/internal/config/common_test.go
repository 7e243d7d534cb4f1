package config

import (
	"encoding/base64"
	"fmt"
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
	for i, want := range []Common{{MaxConnections: &seven, HalfClose: &none}, {}, {MaxConnections: &zero, HalfClose: &wait}, {}} {
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
	if got := cfg.Upstreams[0].Common.Or(d); !reflect.DeepEqual(got, Common{MaxConnections: &seven, HalfClose: &none}) {
		t.Errorf("what is given became %v", got)
	}
	if got := cfg.Upstreams[1].Common.Or(d); !reflect.DeepEqual(got, Common{MaxConnections: &hundred, HalfClose: &second}) {
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
	if _, got := decode(1); !strings.Contains(got, `Error: The plugin "acme" has a broken schema`) || !strings.Contains(got, `"half_close": this attribute of every upstream belongs to the daemon`) {
		t.Errorf("a new plugin: %s", got)
	}
}

// TestViaAndBind: for every type alike, and in a message of their own to a plugin,
// whose hash they change.
func TestViaAndBind(t *testing.T) {
	source := `
upstream "acme" "a" {
  url  = "u"
  via  = "http://alice:s3cret@proxy.corp:3128\n"
  bind = "127.0.0.1"
}
upstream "acme" "a2" { url = "u" }
upstream "direct" "b" {
  via  = "socks5://proxy.corp"
  bind = "::1"
}
listener "tcp" "l" {
  address = "127.0.0.1:0"
  target  = "label:1"
}
route "r" { upstreams = [upstream.acme.a, upstream.acme.a2, upstream.direct.b] }
`
	decode := func(source string) *Config {
		cfg, diags := parseText(t, source)
		diags = append(diags, cfg.DecodeUpstreams(map[string]PluginSchema{"acme": {Block: acme, CommonNames: schema.CommonTable()}})...)
		if len(diags) > 0 {
			t.Fatal(printed(t, diags))
		}
		return cfg
	}
	cfg := decode(source)
	wire, plain, direct := cfg.Upstreams[0].Wire(), cfg.Upstreams[1].Wire(), cfg.Upstreams[2].Common
	if wire.GetCommon().GetVia() != "http://alice:s3cret@proxy.corp:3128" || wire.GetCommon().GetBind() != "127.0.0.1" || strings.Contains(string(wire.GetConfigJson()), "via") {
		t.Errorf("the plugin is told %v", wire)
	}
	if plain.GetCommon() != nil {
		t.Errorf("the plugin is told %v", plain)
	}
	if direct.Via.Text() != "socks5://proxy.corp" || direct.Via.IsZero() || direct.Bind.String() != "::1" {
		t.Errorf("direct: %v, %v", direct.Via.Text(), direct.Bind)
	}
	hashes := map[string]bool{wire.GetConfigHash(): true}
	for _, change := range []string{"s3cret", "127.0.0.1"} {
		hashes[decode(strings.Replace(source, change, change+"1", 1)).Upstreams[0].Hash] = true
	}
	if len(hashes) != 3 {
		t.Errorf("%d hashes of three configurations", len(hashes))
	}
	if again := decode(source); !reflect.DeepEqual(again.Upstreams[2].Common, direct) || again.Upstreams[0].Hash != wire.GetConfigHash() {
		t.Error("the same configuration is another")
	}
	// What a plugin says never holds it.
	d := cfg.PluginDiagnostic("acme.a", &pluginv1.Diagnostic{Summary: "no http://alice:s3cret@proxy.corp:3128 here"})
	if strings.Contains(d.Summary, "s3cret") {
		t.Errorf("%s", d.Summary)
	}
	if text := fmt.Sprintf("%v %+v %#v", cfg.Upstreams[0].Common, cfg.Upstreams[0].Common, cfg); strings.Contains(text, "s3cret") {
		t.Errorf("printed as %s", text)
	}
}

func TestViaAndBindThatAreWrong(t *testing.T) {
	for _, kind := range []string{"acme", "direct"} {
		cfg, diags := parseText(t, `upstream "`+kind+`" "a" {
  via  = "ftp://alice:s3cret@proxy"
  bind = "eth0"
}
`)
		got := printed(t, append(diags, cfg.DecodeUpstreams(map[string]PluginSchema{"acme": {Block: &pluginv1.Block{}, CommonNames: schema.CommonTable()}})...))
		for _, want := range []string{
			"line 2", `Wrong value for "via"`, "It is not a proxy: its scheme is not http, https or socks5.",
			"line 3", `Wrong value for "bind"`, "It is not a usable address: it is not an IP address.",
		} {
			if !strings.Contains(got, want) {
				t.Errorf("%s: %q is not in\n%s", kind, want, got)
			}
		}
		if strings.Contains(got, "s3cret") {
			t.Errorf("%s: the password is in\n%s", kind, got)
		}
	}
}

// TestViaOfAnOlderPlugin: one that has its own goes on with it, and one that has
// none cannot be given one: it would go on without the proxy.
func TestViaOfAnOlderPlugin(t *testing.T) {
	const source = `upstream "acme" "a" { via = "http://proxy:3128" }
`
	own := &pluginv1.Block{Attributes: []*pluginv1.Attribute{schema.Sensitive(schema.Attr("via", schema.Text, ``))}}
	for name, tt := range map[string]struct {
		spec PluginSchema
		want string
		json string
	}{
		"its own":          {PluginSchema{Block: own, CommonNames: 1}, `has a "via" of its own`, `{"via":"http://proxy:3128"}`},
		"none":             {PluginSchema{Block: &pluginv1.Block{}, CommonNames: 1}, `does not know "via"`, ""},
		"of today":         {PluginSchema{Block: &pluginv1.Block{}, CommonNames: 2}, "", `{}`},
		"its own of today": {PluginSchema{Block: own, CommonNames: 2}, "broken schema", ""},
	} {
		cfg, _ := parseText(t, source)
		got := printed(t, cfg.DecodeUpstreams(map[string]PluginSchema{"acme": tt.spec}))
		if !strings.Contains(got, tt.want) || tt.want == "" && got != "" || string(cfg.Upstreams[0].JSON) != tt.json {
			t.Errorf("%s: JSON %s and\n%s", name, cfg.Upstreams[0].JSON, got)
		}
	}
}

// TestPluginsWordsAreScrubbedOfVia: of its password alone as well. How a proxy is named
// in the environment is no secret, and the environment is a word.
func TestPluginsWordsAreScrubbedOfVia(t *testing.T) {
	t.Setenv("HTTPS_PROXY", "http://bob:hunter22@proxy")
	for via, texts := range map[string][2]string{
		"http://alice:s3cr%40t@proxy:3128": {
			"no http://alice:s3cr%40t@proxy:3128, wrong s3cr@t or s3cr%40t, wrong " + base64.StdEncoding.EncodeToString([]byte("alice:s3cr@t")) + " of alice",
			"no (sensitive), wrong (sensitive) or (sensitive), wrong (sensitive) of alice",
		},
		"environment": {"in this environment hunter22 is wrong", "in this environment (sensitive) is wrong"},
	} {
		cfg, diags := parseText(t, fmt.Sprintf("upstream \"acme\" \"a\" { via = %q }\n", via))
		diags = append(diags, cfg.DecodeUpstreams(map[string]PluginSchema{"acme": {Block: &pluginv1.Block{}, CommonNames: schema.CommonTable()}})...)
		if diags.HasErrors() {
			t.Fatal(diags)
		}
		d := cfg.PluginDiagnostic("acme.a", &pluginv1.Diagnostic{Summary: texts[0], Detail: texts[0]})
		if d.Summary != texts[1] || d.Detail != texts[1] {
			t.Errorf("%s: %s", via, d)
		}
	}
}

// TestDirectTLS: the block is read, its files are looked at, and what is careless is
// warned of.
func TestDirectTLS(t *testing.T) {
	cfg, diags := parseText(t, `upstream "direct" "a" {
  tls {
    server_name = "db.corp"
  }
}
upstream "direct" "b" {}
listener "socks5" "l" { address = "127.0.0.1:0" }
route "r" { upstreams = [upstream.direct.a, upstream.direct.b] }
`)
	if len(diags) > 0 || cfg.Upstreams[0].TLS == nil || cfg.Upstreams[0].TLS.ServerName != "db.corp" || cfg.Upstreams[0].TLS.Client.MinVersion != "1.2" || cfg.Upstreams[1].TLS != nil {
		t.Errorf("%+v, %+v, %s", cfg.Upstreams[0].TLS, cfg.Upstreams[1].TLS, printed(t, diags))
	}
	_, diags = parseText(t, `upstream "direct" "a" {
  tls {
    ca_file              = "/no/such/ca.pem"
    cert_file            = "/no/such/cert.pem"
    server_name          = "ü_b"
    insecure_skip_verify = true
  }
}
`)
	got := printed(t, diags)
	for _, want := range []string{"line 3", "Cannot use the authorities", "line 4", `"cert_file" without "key_file"`, "line 5", `Wrong value for "server_name"`, "Warning", "line 6", "certificate is not checked"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in\n%s", want, got)
		}
	}
}
