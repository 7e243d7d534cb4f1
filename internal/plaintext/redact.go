package plaintext

import (
	"encoding/hex"
	"html"
	"strconv"
	"strings"
	"unicode/utf8"
)

// shortestStart is how many bytes of a secret the end of a text must be to be
// taken for its beginning: fewer are there by chance.
const shortestStart = 4

// shortestSecret is how many bytes a secret has, at the least, that is taken out wherever
// it stands. A shorter one is in any word by chance, and is taken out where it stands by
// itself: as a part of a word it tells nobody anything.
const shortestSecret = 4

// Redact takes secrets out of a text of the far end's, which may repeat what it
// was sent: as it was, escaped for a URL, for HTML or for JSON; and the
// beginning of one at the text's end, where the reading stopped. One of fewer than four
// bytes is taken out only where it is no part of a longer word or number. Redact before
// the text is shortened or changed: what is left of a secret is not found.
func Redact(text string, secrets ...string) string {
	hidden := make([]bool, len(text))
	for _, unit := range []unescaper{asItIs, fromURL, fromHTML, fromJSON} {
		plain, at := unescape(text, unit)
		hide := func(from, to int) {
			for i := at[from]; i < at[to]; i++ {
				hidden[i] = true
			}
		}
		for _, s := range secrets {
			s = strings.ReplaceAll(s, "+", " ")
			for from := 0; s != ""; {
				i := strings.Index(plain[from:], s)
				if i < 0 {
					break
				}
				end := from + i + len(s)
				if len(s) >= shortestSecret || !inWord(plain, from+i) && !inWord(plain, end) {
					hide(from+i, end)
				}
				from = end
			}
			for n := min(len(s), len(plain)); n >= shortestStart; n-- {
				if strings.HasSuffix(plain, s[:n]) {
					hide(len(plain)-n, len(plain))
					break
				}
			}
		}
	}
	var b strings.Builder
	for i := range len(text) {
		switch {
		case !hidden[i]:
			b.WriteByte(text[i])
		case i == 0 || !hidden[i-1]:
			b.WriteString(Redacted)
		}
	}
	return b.String()
}

// inWord says whether the bytes before and after a place in a text belong to one word or
// number.
func inWord(text string, at int) bool {
	return at > 0 && at < len(text) && isWord(text[at-1]) && isWord(text[at])
}

func isWord(b byte) bool {
	return '0' <= b && b <= '9' || 'a' <= b && b <= 'z' || 'A' <= b && b <= 'Z' || b >= utf8.RuneSelf
}

// unescaper returns what stands at the beginning of a text that is not empty,
// unescaped, and how many bytes it takes there; of an escape that the text ends
// in, nothing.
type unescaper func(string) (string, int)

// unescape returns the text unescaped, and for each of its bytes where it came
// from; the last is the text's end. A plus is a space, since that is what it may
// stand for in a URL.
func unescape(text string, unit unescaper) (plain string, at []int) {
	var b strings.Builder
	for i := 0; i < len(text); {
		s, n := unit(text[i:])
		b.WriteString(s)
		for range len(s) {
			at = append(at, i)
		}
		i += n
	}
	return strings.ReplaceAll(b.String(), "+", " "), append(at, len(text))
}

func asItIs(s string) (string, int) { return s[:1], 1 }

func fromURL(s string) (string, int) {
	switch {
	case s[0] != '%':
	case len(s) < len("%00"):
		return "", len(s)
	default:
		if b, err := hex.DecodeString(s[1:3]); err == nil {
			return string(b), 3
		}
	}
	return asItIs(s)
}

func fromHTML(s string) (string, int) {
	const longest = len("&#x10ffff;")
	if s[0] != '&' {
		return asItIs(s)
	}
	end := strings.IndexByte(s[:min(len(s), longest)], ';')
	switch {
	case end >= 0:
		if plain := html.UnescapeString(s[:end+1]); plain != s[:end+1] {
			return plain, end + 1
		}
	case len(s) < longest:
		return "", len(s)
	}
	return asItIs(s)
}

func fromJSON(s string) (string, int) {
	switch {
	case s[0] != '\\':
		return asItIs(s)
	case len(s) == 1, s[1] == 'u' && len(s) < len(`\u0000`):
		return "", len(s)
	case s[1] == 'u':
		if r, err := strconv.ParseUint(s[2:6], 16, 16); err == nil {
			return string(rune(r)), 6
		}
	}
	return s[1:2], 2
}
