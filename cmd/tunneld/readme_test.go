package main

import (
	"bytes"
	"path/filepath"
	"testing"

	"github.com/tunneld/tunneld/core"
	"github.com/tunneld/tunneld/internal/pagetest"
)

// TestREADMESchema: the configuration section of each bundled plugin's README is
// what the plugin says of itself.
func TestREADMESchema(t *testing.T) {
	for _, p := range bundled() {
		t.Run(p.Name, func(t *testing.T) {
			var table bytes.Buffer
			if err := core.WriteSchema(t.Context(), &table, options(""), p.Name, "markdown"); err != nil {
				t.Fatal(err)
			}
			pagetest.Generated(t, filepath.Join(root, "plugins", p.Name, "README.md"), "schema", table.String())
		})
	}
}
