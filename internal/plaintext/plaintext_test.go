package plaintext

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestRedactURLs(t *testing.T) {
	for in, want := range map[string]string{
		"no URL: a://":                                       "no URL: a://",
		"https://host/path":                                  "https://host/path",
		"https://host/@scope/me@x":                           "https://host/@scope/me@x",
		"https://host:443/@me":                               "https://host:443/@me",
		"http://[::1]:80/@me":                                "http://[::1]:80/@me",
		"https://s3cret@host/":                               "https://[redacted]@host/",
		"https://u:s3cret@host:1/p#f":                        "https://[redacted]@host:1/p#f",
		"http://u:s3/c?r#et@proxy:3128":                      "http://[redacted]@proxy:3128",
		"https://u:s3c@ret@host":                             "https://[redacted]@host",
		"https://host/p?s3cret":                              "https://host/p?[redacted]",
		"https://host/p?a=s3cret#s3cret":                     "https://host/p?[redacted]",
		"https://host/p?":                                    "https://host/p?",
		`Get "https://u:s3cret@host/?k=s3cret": EOF`:         `Get "https://[redacted]@host/?[redacted]": EOF`,
		`Get "https://host/?k=s3\"s3cret": EOF`:              `Get "https://host/?[redacted]": EOF`,
		"(see https://host/?s3cret), and WSS://s3cret@b.":    "(see https://host/?[redacted]), and WSS://[redacted]@b.",
		"ask https://host/token?s3cret: refused":             "ask https://host/token?[redacted]: refused",
		"sb://ns/;SharedAccessKey=x":                         "sb://ns/;SharedAccessKey=x",
		`Write "http://user:password@host:port", with %40.`:  `Write "http://user:password@host:port", with %40.`,
		"socks5://s3cret@h\nhttp://s3cret@h\thttp://s3cret@": "socks5://[redacted]@h\nhttp://[redacted]@h\thttp://[redacted]@",
	} {
		if got := RedactURLs(in); got != want {
			t.Errorf("%q:\n got %q\nwant %q", in, got, want)
		}
	}
}

func TestLine(t *testing.T) {
	for in, want := range map[string]string{
		" one\r\n\ttwo\x1b[31m ":                        "one   two [31m",
		"C1 \u009b31m, RLO \u202e, \uFEFFBOM, PS\u2029": "C1  31m, RLO \uFFFD, \uFFFDBOM, PS ",
		"\xff\xfe": "\uFFFD\uFFFD",
		"€€€":      "€€€",
	} {
		if got := Line(in, 100); got != strings.TrimSpace(want) {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
	if got := Line("€€€", 7); got != "€€" {
		t.Errorf("cut to %q", got)
	}
	// Taken out before the text is cut: what is left of a secret is not found.
	if got := Line("https://user:s3cret@host/", 16); strings.Contains(got, "s3") {
		t.Errorf("cut to %q", got)
	}
}

func FuzzLine(f *testing.F) {
	f.Add("no such\nhost\x1b", 5)
	f.Add("\xff\xfe€€€€ http://u:p/@h?q\\", 7)
	f.Fuzz(func(t *testing.T, s string, n int) {
		n &= 0xfff
		got := Line(s, n)
		bad := func(r rune) bool { return !unicode.IsPrint(r) && r != unicode.ReplacementChar }
		if !utf8.ValidString(got) || strings.ContainsFunc(got, bad) || len(got) > 3*n {
			t.Errorf("Line(%q, %d) = %q", s, n, got)
		}
	})
}

// FuzzRedactURLs: no secret of a URL that a program has written is left.
func FuzzRedactURLs(f *testing.F) {
	f.Add("in ", "host", "path", ": refused")
	f.Fuzz(func(t *testing.T, before, host, path, after string) {
		const secret = "qZ7-s3cret"
		plain := func(s string) bool {
			return !strings.ContainsFunc(s, func(r rune) bool { return r >= utf8.RuneSelf || !unicode.IsLetter(r) && !unicode.IsDigit(r) })
		}
		if !plain(host) || !plain(path) || host == "" {
			t.Skip()
		}
		url := "https://" + secret + ":" + secret + "@" + host + "/" + path + "?a=" + secret
		if got := RedactURLs(before + " " + url + " " + after); strings.Contains(got, secret) {
			t.Errorf("%q: %q", url, got)
		}
	})
}
