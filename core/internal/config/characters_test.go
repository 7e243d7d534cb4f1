package config

import (
	"path/filepath"
	"strings"
	"testing"
	"unicode"

	"golang.org/x/text/encoding"
	text "golang.org/x/text/encoding/unicode"
	"golang.org/x/text/encoding/unicode/utf32"
	"golang.org/x/text/unicode/runenames"
)

// TestCharacterNames: the names are Unicode's, which has none for control characters.
func TestCharacterNames(t *testing.T) {
	for r, name := range characterNames {
		if want := runenames.Name(r); name != want && !unicode.IsControl(r) {
			t.Errorf("U+%04X is %s, not %s", r, want, name)
		}
	}
}

// TestOtherEncodings: of a file in UTF-16 the file is wrong, and not each of its lines.
func TestOtherEncodings(t *testing.T) {
	for name, e := range map[string]encoding.Encoding{
		"UTF-16LE":                text.UTF16(text.LittleEndian, text.UseBOM),
		"UTF-16BE":                text.UTF16(text.BigEndian, text.UseBOM),
		"UTF-16LE without a mark": text.UTF16(text.LittleEndian, text.IgnoreBOM),
		"UTF-16BE without a mark": text.UTF16(text.BigEndian, text.IgnoreBOM),
		"UTF-32LE":                utf32.UTF32(utf32.LittleEndian, utf32.UseBOM),
		"UTF-32BE":                utf32.UTF32(utf32.BigEndian, utf32.UseBOM),
	} {
		t.Run(name, func(t *testing.T) {
			data, err := e.NewEncoder().String(rest)
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(t.TempDir(), "bad.hcl")
			writeFiles(t, map[string]string{path: data})
			encoding, _, _ := strings.Cut(name, " ")
			want := "Error: File in " + encoding + "\n  on " + path + ":\n\n  A configuration is in UTF-8. Save it in that encoding, or convert it: iconv -f " + encoding + " -t UTF-8 OLD > NEW.\n\n"
			if _, diags := diagnose(path); printed(t, diags) != want {
				t.Errorf("got:\n%s\nwant:\n%s", printed(t, diags), want)
			}
			if _, err := Format([]byte(data), path); err == nil || !strings.Contains(err.Error(), "File in "+encoding) {
				t.Errorf("format: %v", err)
			}
		})
	}
}
