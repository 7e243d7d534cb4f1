package hclbody

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/tunneld/tunneld/internal/schema"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

var update = flag.Bool("update", false, "write what is rendered into the golden files")

func TestRender(t *testing.T) {
	block := every()
	block.Blocks[0].Required = true
	block.Attributes[0].Required = true
	for _, format := range Formats {
		var b bytes.Buffer
		if err := Render(&b, format, "every", block); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join("testdata", "render."+format)
		if *update {
			if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if b.String() != string(want) {
			t.Errorf("%s:\n got %s\nwant %s", format, b.String(), want)
		}
		if strings.Contains(b.String(), "hidden") {
			t.Errorf("%s shows a sensitive default", format)
		}
		if format == "json" && !json.Valid(b.Bytes()) {
			t.Error("the JSON is none")
		}
	}
	if err := Render(&bytes.Buffer{}, "yaml", "every", block); err == nil || !strings.Contains(err.Error(), "text, hcl, json, markdown") {
		t.Errorf("an unknown format: %v", err)
	}
}

// TestRenderedExampleDecodes: the example of a schema is a body of that schema,
// as it stands and with every comment that is an attribute uncommented.
func TestRenderedExampleDecodes(t *testing.T) {
	block := every()
	block.Attributes[0].Required = true
	for _, n := range block.GetBlocks() {
		n.Required = true
	}
	var b bytes.Buffer
	if err := Render(&b, "hcl", "every", block); err != nil {
		t.Fatal(err)
	}
	source := b.String()
	var uncommented strings.Builder
	for line := range strings.Lines(source) {
		if name, _, ok := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "# "), " = "); ok && schema.IsName(name) {
			line = strings.Replace(line, "# ", "", 1)
		}
		uncommented.WriteString(line)
	}
	for _, source := range []string{source, uncommented.String()} {
		f, diags := hclsyntax.ParseConfig([]byte(source), "x.hcl", hcl.InitialPos)
		if diags.HasErrors() {
			t.Fatalf("%v in:\n%s", diags, source)
		}
		inner := f.Body.(*hclsyntax.Body).Blocks[0].Body
		_, problems := decode(t, block, string(inner.Range().SliceBytes([]byte(source))[1:len(inner.Range().SliceBytes([]byte(source)))-1]))
		for line := range strings.Lines(problems) {
			if !strings.Contains(line, "Deprecated") {
				t.Errorf("%s in:\n%s", line, source)
			}
		}
	}
}

func TestRenderIsSafe(t *testing.T) {
	block := &pluginv1.Block{
		Doc: "line\n}\nlog {\x1b[31m",
		Attributes: []*pluginv1.Attribute{
			{Name: "a", Type: str, Doc: "a\nb = 1\n\x07", DefaultJson: `"${x}\n"`},
		},
	}
	for _, format := range Formats {
		var b bytes.Buffer
		if err := Render(&b, format, "every", block); err != nil {
			t.Fatal(err)
		}
		if strings.ContainsAny(b.String(), "\x1b\x07") {
			t.Errorf("%s: control characters in %q", format, b.String())
		}
		if format != "hcl" {
			continue
		}
		f, diags := hclsyntax.ParseConfig(b.Bytes(), "x.hcl", hcl.InitialPos)
		if body := f.Body.(*hclsyntax.Body); diags.HasErrors() || len(body.Blocks) != 1 || len(body.Blocks[0].Body.Attributes) != 0 {
			t.Errorf("the texts of the schema became code:\n%s", b.String())
		}
	}
}
