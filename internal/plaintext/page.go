package plaintext

import (
	"regexp"
	"strings"
	"unicode"

	"golang.org/x/net/html"
)

// MaxPage is how many bytes of a text may be read for an Excerpt: of a page of HTML the
// words may come behind kilobytes of styles. It does not look at more.
const MaxPage = 64 << 10

// startOfPage is how a page of HTML, or another text with markup, begins.
var startOfPage = regexp.MustCompile(`^<[A-Za-z!?/]`)

// tagOfPage is a tag that only HTML has, for pages that begin with words; JSON that
// quotes one is none.
var tagOfPage = regexp.MustCompile(`(?i)<(?:/?(?:html|head|title|body|style|script|h[1-6]|p|br|hr|div|center|pre|table)(?:\s[^<>]*)?/?|a\s+href=[^<>]*|!doctype html[^<>]*)>`)

// hasMarkup says whether a text is one of HTML or XML, whatever its sender says that
// it is.
func hasMarkup(s string) bool {
	return startOfPage.MatchString(s) || !strings.HasPrefix(s, "{") && tagOfPage.MatchString(s)
}

// inline are the elements that do not end a word.
var inline = map[string]bool{
	"a": true, "abbr": true, "b": true, "big": true, "code": true, "em": true, "font": true, "i": true, "kbd": true,
	"s": true, "samp": true, "small": true, "span": true, "strong": true, "sub": true, "sup": true, "tt": true, "u": true, "wbr": true,
}

// unseen are the elements whose text nobody sees.
var unseen = map[string]bool{
	"script": true, "style": true, "template": true, "svg": true, "noscript": true, "iframe": true, "noembed": true, "noframes": true, "textarea": true,
}

// words returns what a reader of a page sees: its title, unless the body has it as well,
// and the text of its body, with all its white space. A page that breaks off, or is
// malformed, has the words that a browser would show of it, more or less.
func words(page string) string {
	var title, body strings.Builder
	to, within := &body, "" // an unseen element
	z := html.NewTokenizer(strings.NewReader(withoutBrokenTag(page)))
	for {
		switch kind := z.Next(); kind {
		case html.ErrorToken: // the end: a text cannot fail otherwise
			switch head, rest := letters(title.String()), letters(body.String()); {
			case strings.Contains(rest, head):
				return body.String()
			case rest == "":
				return title.String()
			}
			return strings.TrimSpace(title.String()) + ": " + body.String()
		case html.TextToken:
			if within == "" {
				to.Write(z.Text())
			}
		case html.StartTagToken, html.EndTagToken, html.SelfClosingTagToken:
			tag, _ := z.TagName()
			name := string(tag)
			switch {
			case kind == html.SelfClosingTagToken:
				z.NextIsNotRawText() // XHTML's, which has none
			case within != "":
				if kind == html.EndTagToken && name == within {
					within = ""
				}
			case kind == html.StartTagToken && unseen[name]:
				within = name
			case name == "title":
				if to = &body; kind == html.StartTagToken {
					to = &title
				}
			}
			if !inline[name] {
				to.WriteByte(' ')
			}
		}
	}
}

// withoutBrokenTag returns a page without a tag at its end of which no more has come than
// the beginning: it may be text to the tokenizer.
func withoutBrokenTag(page string) string {
	i := strings.LastIndexByte(page, '<')
	if i < 0 || strings.Contains(page[i:], ">") {
		return page
	}
	if name := strings.TrimPrefix(page[i+1:], "/"); name == "" || unicode.IsLetter(rune(name[0])) {
		return page[:i]
	}
	return page
}

// letters is what two texts have in common that say the same.
func letters(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) || unicode.IsDigit(r) {
			return unicode.ToLower(r)
		}
		return -1
	}, s)
}
