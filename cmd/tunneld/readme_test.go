package main

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/tunneld/tunneld/core"
)

var update = flag.Bool("update", false, "write the generated parts of the plugins' READMEs anew")

// TestREADMESchema: the configuration section of each bundled plugin's README is
// what the plugin says of itself.
func TestREADMESchema(t *testing.T) {
	generated := regexp.MustCompile(`(?s)(<!-- schema -->\n).*(<!-- /schema -->\n)`)
	for _, p := range bundled() {
		t.Run(p.Name, func(t *testing.T) {
			var table bytes.Buffer
			if err := core.WriteSchema(t.Context(), &table, options(""), p.Name, "markdown"); err != nil {
				t.Fatal(err)
			}
			page := filepath.Join(root, "plugins", p.Name, "README.md")
			old, err := os.ReadFile(page)
			if err != nil {
				t.Fatal(err)
			}
			if !generated.Match(old) {
				t.Fatalf("%s has no generated part", page)
			}
			next := generated.ReplaceAll(old, []byte("${1}"+strings.ReplaceAll(table.String(), "$", "$$")+"${2}"))
			if *update {
				if err := os.WriteFile(page, next, 0o644); err != nil {
					t.Fatal(err)
				}
			} else if !bytes.Equal(old, next) {
				t.Errorf("%s is stale: go test ./cmd/tunneld -run TestREADMESchema -update", page)
			}
		})
	}
}
