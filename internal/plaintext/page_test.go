package plaintext

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// TestErrorPages: of a server's page a user reads what it says, and none of its styles,
// scripts and comments.
func TestErrorPages(t *testing.T) {
	for name, want := range map[string]string{
		"nginx":  "502 Bad Gateway nginx/1.22.1",
		"tomcat": "HTTP Status 404 – Not Found Type Status Report Message The requested resource [/tunnel] is not available Description The origin server did not find a current representation for the target resource o…",
		"squid":  "ERROR The requested URL could not be retrieved The following error was encountered while trying to retrieve the URL: https://relay.corp/* Connection to 192.0.2.7 failed. The system returned: (111) Con…",
		"iis":    "Server Error 403 - Forbidden: Access is denied. You do not have permission to view this directory or page using the credentials that you supplied.",
		"azure":  "Web App - Unavailable: Error 403 - This web app is stopped. The web app you have attempted to reach is currently stopped and does not accept any requests. Please try to reload the page or visit it aga…",
	} {
		page, err := os.ReadFile(filepath.Join("testdata", name+".html"))
		if err != nil {
			t.Fatal(err)
		}
		if got := Excerpt(string(page), 200); got != want {
			t.Errorf("%s:\n got %q\nwant %q", name, got, want)
		}
		// However much of it has come: never a style.
		for n := 2; n < len(page); n += 97 {
			got := Excerpt(string(page[:n]), 1000)
			for _, part := range []string{"font-family", "padding", "<", "base64", "appInsights", "Stylesheet"} {
				if strings.Contains(got, part) {
					t.Fatalf("%s, %d bytes: %q", name, n, got)
				}
			}
		}
	}
}

func TestWordsOfPages(t *testing.T) {
	for in, want := range map[string]string{
		"<html>hello</html>":                             "hello",
		"\ufeff\r\n<p>a<p>b":                             "a b",
		"<title>T</title>":                               "T",
		"<title>T</title><p>b":                           "T: b",
		"<title/><p>b":                                   "b",
		"<h1>a &amp; b&nbsp;c":                           "a & b c",
		"see <a href=x>here</a>.":                        "see here.",
		"Bad gateway\n<p>of nginx</p><style>p{}</style>": "Bad gateway of nginx",
		"<p>a<style>p{color:red}":                        "a",
		"<p>a<!-- b":                                     "a",
		"<p>a<b":                                         "a",
		"<title>a</tit":                                  "a",
		"<p>at http://a/":                                "at http://a/",
		"<svg><title>x</title><path/></svg><p>b<script>1</p></script>c":         "b c",
		"<Error><Code>AuthorizationFailure</Code><Message>no</Message></Error>": "AuthorizationFailure no",
		"a<b and c>d":                 "a<b and c>d",
		"<3 of them":                  "<3 of them",
		"no <such> thing":             "no <such> thing",
		`{"error":"<html> was sent"}`: `{"error":"<html> was sent"}`,
	} {
		if got := Excerpt(in, 200); got != want {
			t.Errorf("%q:\n got %q\nwant %q", in, got, want)
		}
	}
}

// TestSecretsInPages: words that markup had separated are looked through again.
func TestSecretsInPages(t *testing.T) {
	for _, in := range []string{
		"<p>hun<b>ter2-a</b>nd", "<p>&#104;unter2-and", "<title>hunter2-and</title>", "<p>see https://u:&#104;unter2-and@host/?a=b",
		"<p>" + strings.Repeat("x", MaxPage-len("<p>hunter")) + "hunter2-and",
	} {
		if got := Excerpt(in, MaxPage, "hunter2-and"); strings.Contains(got, "unter") {
			t.Errorf("%.80q: %.80q", in, got)
		}
	}
}

func FuzzExcerptOfPage(f *testing.F) {
	f.Add("<title>a</title><style>b</style>c &amp; <!-- d", 100)
	f.Add("<p><script>\xff</p", 3)
	f.Fuzz(func(t *testing.T, s string, n int) {
		n &= 0xfff
		got := Excerpt(s, n)
		bad := func(r rune) bool { return !unicode.IsPrint(r) && r != unicode.ReplacementChar }
		if !utf8.ValidString(got) || strings.ContainsFunc(got, bad) || len(got) > n+len("…") {
			t.Errorf("Excerpt(%q, %d) = %q", s, n, got)
		}
	})
}
