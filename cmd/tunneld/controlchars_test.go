package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tunneld/tunneld/core"
	"github.com/tunneld/tunneld/plugins/sdk"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// texts writes a body in which each attribute that is a text and no secret ends in
// a line break, as that of a file does, and returns the names of these.
func texts(b *pluginv1.Block, path string, body *strings.Builder) (names []string) {
	for _, a := range b.GetAttributes() {
		if a.GetType().GetKind() == pluginv1.Kind_KIND_STRING && !a.GetSensitive() {
			fmt.Fprintf(body, "%s = \"x\\n\"\n", a.GetName())
			names = append(names, path+a.GetName())
		}
	}
	for _, n := range b.GetBlocks() {
		fmt.Fprintf(body, "%s {\n", n.GetName())
		names = append(names, texts(n.GetBody(), path+n.GetName()+".", body)...)
		body.WriteString("}\n")
	}
	return names
}

// TestFilesLineBreaksAreRefused in every attribute of every bundled plugin that is
// sent, or named, as it is written.
func TestFilesLineBreaksAreRefused(t *testing.T) {
	for _, p := range bundled() {
		t.Run(p.Name, func(t *testing.T) {
			schema, err := sdk.SchemaOf(p.New())
			if err != nil {
				t.Fatal(err)
			}
			var body strings.Builder
			names := texts(schema, "", &body)
			path := filepath.Join(t.TempDir(), "tunneld.hcl")
			config := fmt.Sprintf("upstream %q \"x\" {\n%s}\n%s%s", p.Name, body.String(), listener("l", "127.0.0.1:0", "a.example:1", ""), route("r", "", "upstream."+p.Name+".x"))
			if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
				t.Fatal(err)
			}
			diags, err := core.Validate(t.Context(), options(path))
			if err != nil || len(names) < 6 {
				t.Fatalf("%v, %d attributes", err, len(names))
			}
			said := told(diags)
			for _, name := range names {
				if !strings.Contains(said, "Error: "+name+" ends in a line break\n") {
					t.Errorf("nothing is said of %s:\n%s", name, said)
				}
			}
		})
	}
}
