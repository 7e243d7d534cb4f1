package config

import (
	"bytes"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"

	"github.com/tunneld/tunneld/core/internal/hclbody"
)

const summaryCharacter = "Character that has no meaning here"

// encodings are other encodings of text than UTF-8, by the file's first bytes: a byte
// order mark, or the zeros of an ASCII character.
var encodings = []struct {
	name  string
	known func([]byte) bool
}{
	{"UTF-32LE", begins("\xff\xfe\x00\x00")},
	{"UTF-32BE", begins("\x00\x00\xfe\xff")},
	{"UTF-16LE", begins("\xff\xfe")},
	{"UTF-16BE", begins("\xfe\xff")},
	{"UTF-16LE", func(b []byte) bool { return len(b) > 1 && b[0] != 0 && b[1] == 0 }},
	{"UTF-16BE", func(b []byte) bool { return len(b) > 1 && b[0] == 0 && b[1] != 0 }},
}

func begins(mark string) func([]byte) bool {
	return func(b []byte) bool { return bytes.HasPrefix(b, []byte(mark)) }
}

// encodingProblem says of a file in UTF-16 that it is: each of its lines would be wrong.
// nil: it is none.
func encodingProblem(src []byte, name string) *hclbody.Problem {
	for _, e := range encodings {
		if e.known(src) {
			return &hclbody.Problem{
				Summary: "File in " + e.name,
				Detail:  fmt.Sprintf("A configuration is in UTF-8. Save it in that encoding, or convert it: iconv -f %s -t UTF-8 OLD > NEW.", e.name),
				Range:   hcl.Range{Filename: name},
			}
		}
	}
	return nil
}

// characterNames are Unicode's, of characters that come with texts copied from pages and
// documents, and that are not seen, or seen as others.
var characterNames = map[rune]string{
	0x00:   "NULL",
	0x0c:   "FORM FEED",
	0x0d:   "CARRIAGE RETURN",
	0x1b:   "ESCAPE",
	'\'':   "APOSTROPHE",
	'`':    "GRAVE ACCENT",
	0x7f:   "DELETE",
	0x85:   "NEXT LINE",
	0xa0:   "NO-BREAK SPACE",
	0xab:   "LEFT-POINTING DOUBLE ANGLE QUOTATION MARK",
	0xad:   "SOFT HYPHEN",
	0xb4:   "ACUTE ACCENT",
	0xbb:   "RIGHT-POINTING DOUBLE ANGLE QUOTATION MARK",
	0x2002: "EN SPACE",
	0x2003: "EM SPACE",
	0x2007: "FIGURE SPACE",
	0x2009: "THIN SPACE",
	0x200a: "HAIR SPACE",
	0x200b: "ZERO WIDTH SPACE",
	0x200c: "ZERO WIDTH NON-JOINER",
	0x200d: "ZERO WIDTH JOINER",
	0x200e: "LEFT-TO-RIGHT MARK",
	0x200f: "RIGHT-TO-LEFT MARK",
	0x2010: "HYPHEN",
	0x2011: "NON-BREAKING HYPHEN",
	0x2012: "FIGURE DASH",
	0x2013: "EN DASH",
	0x2014: "EM DASH",
	0x2018: "LEFT SINGLE QUOTATION MARK",
	0x2019: "RIGHT SINGLE QUOTATION MARK",
	0x201a: "SINGLE LOW-9 QUOTATION MARK",
	0x201c: "LEFT DOUBLE QUOTATION MARK",
	0x201d: "RIGHT DOUBLE QUOTATION MARK",
	0x201e: "DOUBLE LOW-9 QUOTATION MARK",
	0x2026: "HORIZONTAL ELLIPSIS",
	0x2028: "LINE SEPARATOR",
	0x2029: "PARAGRAPH SEPARATOR",
	0x202a: "LEFT-TO-RIGHT EMBEDDING",
	0x202c: "POP DIRECTIONAL FORMATTING",
	0x202d: "LEFT-TO-RIGHT OVERRIDE",
	0x202e: "RIGHT-TO-LEFT OVERRIDE",
	0x202f: "NARROW NO-BREAK SPACE",
	0x2032: "PRIME",
	0x2033: "DOUBLE PRIME",
	0x2060: "WORD JOINER",
	0x2066: "LEFT-TO-RIGHT ISOLATE",
	0x2069: "POP DIRECTIONAL ISOLATE",
	0x2212: "MINUS SIGN",
	0x3000: "IDEOGRAPHIC SPACE",
	0xfeff: "ZERO WIDTH NO-BREAK SPACE",
}

// quotes are written in place of the straight double quote.
const quotes = "'`´‘’‚‛“”„‟«»‹›′″＂＇"

// characterDetail names a character and says what to write in its place.
func characterDetail(r rune) string {
	name := fmt.Sprintf("U+%04X", r)
	switch {
	case characterNames[r] != "":
		name += " " + characterNames[r]
	case unicode.IsPrint(r):
		name += fmt.Sprintf(" “%c”", r)
	}
	return name + ". " + inItsPlace(r)
}

func inItsPlace(r rune) string {
	switch {
	case strings.ContainsRune(quotes, r):
		return `Texts are written in straight double quotes: "text".`
	case r == '\r':
		return "Lines end with LF, or with CR LF."
	case r == ';' || r == '；':
		return "Attributes and blocks each begin on a line of their own. Remove it."
	case r > 0xff00 && r <= 0xff5e: // the wide forms of ASCII
		return fmt.Sprintf("Write %c in its place.", r-0xff00+' ')
	case unicode.Is(unicode.Zs, r):
		return "It looks like an ordinary space, but is not one. Write one in its place."
	case unicode.In(r, unicode.Zl, unicode.Zp):
		return "It looks like a new line, but is not one. Write one in its place."
	case unicode.Is(unicode.Cf, r):
		return "It cannot be seen. Remove it, or write the line anew."
	case unicode.IsControl(r):
		return "It is a control character. Remove it."
	case unicode.Is(unicode.Pd, r), r == '−':
		return "Write - in its place."
	}
	return "It can only stand in a text in quotes, or in a comment."
}

// tellOnce keeps the first of the complaints about one character, which often is on each
// line of a text that was copied.
func tellOnce(problems []hclbody.Problem) []hclbody.Problem {
	var kept []hclbody.Problem
	first := map[string]int{} // by detail
	again := map[string]bool{}
	for _, p := range problems {
		if p.Summary == summaryCharacter {
			if _, told := first[p.Detail]; told {
				again[p.Detail] = true
				continue
			}
			first[p.Detail] = len(kept)
		}
		kept = append(kept, p)
	}
	for detail := range again {
		kept[first[detail]].Detail += " Further lines have it, too."
	}
	return kept
}

// characterAt returns the character that a complaint is about.
func characterAt(src []byte, place hcl.Range) (r rune, ok bool) {
	r, size := utf8.DecodeRune(place.SliceBytes(src))
	return r, size > 1 || r != utf8.RuneError
}
