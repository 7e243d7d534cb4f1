package config

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/tunneld/tunneld/core/diag"
	"github.com/tunneld/tunneld/internal/schema"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

var update = flag.Bool("update", false, "write what is printed into the golden files")

// rest makes the other blocks that a case needs so that it has only its own
// mistake.
const rest = `upstream "direct" "rest" {}

listener "tcp" "rest" {
  address = "127.0.0.1:1"
  target  = "rest:1"
}

route "rest" {
  match { listeners = [listener.tcp.rest] }
  upstreams = [upstream.direct.rest]
}
`

// acme is the schema of the plugin that the tests configure.
var acme = &pluginv1.Block{
	Attributes: []*pluginv1.Attribute{
		{Name: "url", Type: schema.Text, Required: true},
		{Name: "token", Type: schema.Text, Sensitive: true},
		{Name: "old", Type: schema.Text, Deprecated: `Use "url".`},
		{Name: "headers", Type: schema.Map(schema.Text)},
		{Name: "hosts", Type: schema.List(schema.Text)},
		{Name: "size", Type: &pluginv1.Type{Kind: pluginv1.Kind_KIND_SIZE}, DefaultJson: "32768"},
		{Name: "wait", Type: schema.Duration, DefaultJson: `"10s"`},
		{Name: "count", Type: &pluginv1.Type{Kind: pluginv1.Kind_KIND_INT}},
	},
	Blocks: []*pluginv1.NestedBlock{
		schema.Single("oauth", schema.Required("client_id", schema.Text), schema.Sensitive(schema.Attr("client_secret", schema.Text, ``))),
		{Name: "mapping", Nesting: pluginv1.Nesting_NESTING_LABELLED, Body: &pluginv1.Block{Attributes: []*pluginv1.Attribute{schema.Required("to", schema.Text)}}},
	},
}

// diagnose parses a path, decodes the upstreams, and returns all that is said.
func diagnose(path string) (*Config, diag.Diagnostics) {
	cfg, diags := Parse(path)
	diags = append(diags, cfg.DecodeUpstreams(map[string]PluginSchema{"acme": {Block: acme}})...)
	diags.Sort()
	return cfg, diags
}

func printed(t *testing.T, d diag.Diagnostics) string {
	t.Helper()
	var b bytes.Buffer
	if err := d.Write(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func writeFiles(t *testing.T, files map[string]string) {
	t.Helper()
	for name, data := range files {
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestGolden: one bad file, one exact message. An archive holds the files of
// the folder conf, beside them what file() reads, and what is printed. The
// comment says "alone" where rest.hcl is not wanted.
func TestGolden(t *testing.T) {
	if err := schema.Check(acme); err != nil {
		t.Fatal(err)
	}
	cases, err := filepath.Glob("testdata/bad/*.txtar")
	if err != nil || len(cases) < 60 {
		t.Fatalf("%d cases (%v), want at least 60", len(cases), err)
	}
	for _, path := range cases {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			path, err := filepath.Abs(path)
			if err != nil {
				t.Fatal(err)
			}
			archive, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			t.Chdir(t.TempDir())
			t.Setenv("ACME_SECRET", "the-secret-of-acme")
			files := map[string]string{}
			if !strings.Contains(string(archive.Comment), "alone") {
				files["conf/rest.hcl"] = rest
			}
			want := ""
			for _, f := range archive.Files {
				if f.Name == "want" {
					want = string(f.Data)
				} else {
					files[f.Name] = string(f.Data)
				}
			}
			writeFiles(t, files)
			_, diags := diagnose("conf")
			got := printed(t, diags)
			if *update {
				archive.Files = append(withoutWant(archive.Files), txtar.File{Name: "want", Data: []byte(got)})
				if err := os.WriteFile(path, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got != want {
				t.Errorf("got:\n%s\nwant:\n%s", got, want)
			}
			if strings.Contains(got, "the-secret-of-acme") {
				t.Error("the secret is printed")
			}
		})
	}
}

func withoutWant(files []txtar.File) []txtar.File {
	var kept []txtar.File
	for _, f := range files {
		if f.Name != "want" {
			kept = append(kept, f)
		}
	}
	return kept
}

// parserFor is a parser at work on one file that was never on a disk.
func parserFor(f *file) *parser {
	cfg := &Config{src: newSource(".")}
	cfg.src.files[f.name] = f
	return newParser(cfg)
}
