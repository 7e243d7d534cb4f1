// Package plaintext makes foreign texts fit to be shown: it removes what could control a
// terminal, and the secrets in URLs.
package plaintext

import (
	"fmt"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf16"
)

// Line returns s as one line of at most n bytes, cut at a whole character: valid
// UTF-8 without control characters, without those that change the direction of
// writing or cannot be seen, and with the secrets of its URLs taken out as by
// RedactURLs.
func Line(s string, n int) string {
	s = RedactURLs(s)
	if len(s) > n {
		s = strings.ToValidUTF8(s[:n], "")
	}
	return strings.TrimSpace(Shown(s))
}

// Excerpt returns the beginning of a peer's text as one line: printable, with single
// spaces, without the secrets given and those of URLs, of a page of HTML the title and
// the words that its reader sees, and at most n bytes long, behind which an ellipsis says
// that there was more.
func Excerpt(s string, n int, secrets ...string) string {
	if len(s) > MaxPage {
		s = s[:MaxPage]
	}
	s = RedactURLs(Redact(s, secrets...))
	if plain := strings.TrimLeft(s, "\ufeff \t\r\n"); hasMarkup(plain) {
		s = RedactURLs(Redact(words(plain), secrets...))
	}
	s = strings.Join(strings.Fields(Shown(strings.ToValidUTF8(s, string(unicode.ReplacementChar)))), " ")
	if len(s) > n {
		s = strings.ToValidUTF8(s[:n], "") + "…"
	}
	return s
}

// Shown returns s without what Line takes out, but for the secrets of URLs and in its
// length: for documentation, and for names that are yet to be checked.
func Shown(s string) string { return strings.Map(printable, s) }

// EscapeJSON returns a JSON text that means the same, with escapes for all that is
// not printable.
func EscapeJSON(s string) string {
	var b strings.Builder
	for _, r := range s {
		switch {
		case r < ' ':
			b.WriteByte(' ') // JSON allows it between values alone
		case unicode.IsPrint(r):
			b.WriteRune(r)
		default:
			for _, unit := range utf16.Encode([]rune{r}) {
				fmt.Fprintf(&b, `\u%04x`, unit)
			}
		}
	}
	return b.String()
}

// printable returns what is shown for r. Of invalid UTF-8 it is given
// unicode.ReplacementChar, which may be shown.
func printable(r rune) rune {
	switch {
	case unicode.IsPrint(r):
		return r
	case unicode.IsSpace(r), unicode.IsControl(r):
		return ' '
	}
	return unicode.ReplacementChar
}

// Redacted stands where a secret was.
const Redacted = "[redacted]"

// anyURL is a URL within a text, to the quote or the space that ends it. In a
// text that was quoted by Go or JSON an escaped quote is part of it.
var anyURL = regexp.MustCompile("[A-Za-z][A-Za-z0-9+.-]*://" + `(?:\\.|[^\s"<>` + "`" + `\\])+`)

// RedactURLs takes the userinfo and the query out of each URL in a text: both may
// be secrets, and URLs are in the texts of many errors. The example
// "user:password@" is not a secret and stays.
func RedactURLs(text string) string {
	if !strings.Contains(text, "://") {
		return text
	}
	return anyURL.ReplaceAllStringFunc(text, redactURL)
}

func redactURL(u string) string {
	// The sentence's, not the URL's.
	whole := strings.TrimRight(u, ".,:;)]}'…")
	end := u[len(whole):]
	scheme, rest, _ := strings.Cut(whole, "://")
	i := endOfUserinfo(rest)
	user, rest := rest[:i], rest[i:]
	if user != "" && user != "user:password@" {
		user = Redacted + "@"
	}
	if path, query, found := strings.Cut(rest, "?"); found && query != "" {
		rest = path + "?" + Redacted
	}
	return scheme + "://" + user + rest + end
}

// endOfUserinfo returns the index behind the @ of an authority and what follows it;
// 0: there is none. A password in which / ? or # are not escaped belongs to it too:
// without an @ before these, only a port, or no colon, makes the text before them
// an authority.
func endOfUserinfo(s string) int {
	end := strings.IndexAny(s, `/?#\`)
	if end < 0 {
		end = len(s)
	}
	authority := s[:end]
	if i := strings.LastIndexByte(authority, '@'); i >= 0 {
		return i + 1
	}
	_, port, found := strings.Cut(authority, ":")
	if isPort := strings.Trim(port, "0123456789") == ""; !found || isPort || strings.HasPrefix(authority, "[") {
		return 0
	}
	return strings.LastIndexByte(s, '@') + 1
}
