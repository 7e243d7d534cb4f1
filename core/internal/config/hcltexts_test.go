package config

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestTextsAreHCLs: each text by which a complaint of hcl is known is one of the version
// of hcl that is used. One that has changed there would no longer be translated.
func TestTextsAreHCLs(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-f", "{{.Dir}}", "github.com/hashicorp/hcl/v2").Output()
	if err != nil {
		t.Fatal(err)
	}
	var source []byte
	for _, pattern := range []string{"*.go", "hclsyntax/*.go"} {
		files, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(out)), pattern))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %v", pattern, err)
		}
		for _, f := range files {
			if strings.HasSuffix(f, "_test.go") {
				continue
			}
			text, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			source = append(source, text...)
		}
	}
	for _, s := range syntaxTexts {
		if !bytes.Contains(source, []byte(s.piece)) {
			t.Errorf("the parser does not say %q", s.piece)
		}
	}
	for _, e := range evalTexts {
		for _, summary := range e.summaries {
			if !bytes.Contains(source, []byte(`"`+summary+`"`)) {
				t.Errorf("no expression is told %q", summary)
			}
		}
	}
	for _, summary := range []string{"Attribute redefined", "Unterminated template string"} {
		if !bytes.Contains(source, []byte(`"`+summary+`"`)) {
			t.Errorf("the parser does not say %q", summary)
		}
	}
}
