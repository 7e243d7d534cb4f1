package sdk

import "github.com/tunneld/tunneld/internal/plaintext"

// Redact takes secrets out of a text from the far end, which may repeat what it was sent:
// as it was, or escaped for a URL, for HTML or for JSON, and the beginning of one at the
// text's end, where the reading stopped. A secret of fewer than 4 bytes, which any text holds
// by chance, is taken out where it stands by itself and not as part of a word. Call it before
// the text is shortened or changed, since it does not find parts of a secret.
func Redact(text string, secrets ...string) string { return plaintext.Redact(text, secrets...) }

// RedactURLs takes the userinfo and the query out of each URL in a text: both may be
// secrets. The daemon does the same to all that a plugin says of itself; this is for
// a text that is shortened or compared before.
func RedactURLs(text string) string { return plaintext.RedactURLs(text) }

// MaxPage is how many bytes of a text Excerpt looks at.
const MaxPage = plaintext.MaxPage

// Excerpt makes a text from the far end fit for an error: one printable line of at most n
// bytes and an ellipsis, and without the secrets that the far end may repeat (see Redact
// and RedactURLs). Of a page of HTML it has the title and the words that a reader sees, which
// may come behind kilobytes of styles: read up to MaxPage of an answer for it.
func Excerpt(text string, n int, secrets ...string) string {
	return plaintext.Excerpt(text, n, secrets...)
}
