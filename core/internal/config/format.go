package config

import (
	"bytes"

	"github.com/hashicorp/hcl/v2/hclwrite"

	"github.com/tunneld/tunneld/core/diag"
)

// Format returns the source in its canonical layout. The error is Diagnostics
// if the source is not syntactically right; filename is for them. Formatting
// what was formatted changes nothing.
func Format(src []byte, filename string) ([]byte, error) {
	f, problems := parseFile(filename, src)
	if f.broken > 0 {
		s := source{files: map[string]*file{filename: f}}
		var diags diag.Diagnostics
		for _, p := range problems {
			diags = append(diags, s.diagnostic(p))
		}
		return nil, diags
	}
	// One pass settles nearly every source; a comment after a line that moves
	// may take another.
	for range 4 {
		next := hclwrite.Format(src)
		if bytes.Equal(next, src) {
			break
		}
		src = next
	}
	return src, nil
}
