package sdk

import "github.com/tunneld/tunneld/internal/plaintext"

// Redact takes secrets out of a text of the far end's, which may repeat what it
// was sent: as it was, escaped for a URL, for HTML or for JSON; and the
// beginning of one at the text's end, where the reading stopped. Redact before
// the text is shortened or changed: what is left of a secret is not found.
func Redact(text string, secrets ...string) string { return plaintext.Redact(text, secrets...) }

// RedactURLs takes the userinfo and the query out of each URL in a text: both may be
// secrets. The daemon does the same to whatever a plugin says of itself; here it is for
// a text that is shortened, or compared, before it gets there.
func RedactURLs(text string) string { return plaintext.RedactURLs(text) }

// Excerpt makes a text of the far end's fit for an error: one printable line of at
// most n bytes and an ellipsis, of a page of HTML its words alone, and without the
// secrets that the far end may repeat (see Redact), those in URLs included. Of
// secrets that have fewer than 4 bytes nothing is taken out: they stand in any text.
func Excerpt(text string, n int, secrets ...string) string {
	return plaintext.Excerpt(text, n, secrets...)
}
