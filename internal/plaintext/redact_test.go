package plaintext

import (
	"encoding/json"
	"html"
	"net/url"
	"strings"
	"testing"
)

func TestRedact(t *testing.T) {
	const secret = "s3cr&t/+w=rd é%41"
	lower := strings.NewReplacer("%2F", "%2f", "%2B", "%2b", "%3D", "%3d").Replace(url.QueryEscape(secret))
	quoted, err := json.Marshal(secret)
	if err != nil {
		t.Fatal(err)
	}
	for name, form := range map[string]string{
		"as it is":            secret,
		"in a query":          url.QueryEscape(secret),
		"in small letters":    lower,
		"in a path":           url.PathEscape(secret),
		"every byte escaped":  "%73%33%63%72%26%74%2F%2B%77%3D%72%64%20%C3%A9%25%34%31",
		"in HTML":             html.EscapeString(secret),
		"in numeric entities": "s3cr&#38;t/&#43;w&#x3D;rd &eacute;%41",
		"in JSON":             strings.Trim(string(quoted), `"`),
		"in JSON of PHP":      `s3cr&t\/+w=rd \u00e9%41`,
	} {
		t.Run(name, func(t *testing.T) {
			if got, want := Redact("a "+form+"&b="+form, "other", secret), "a [redacted]&b=[redacted]"; got != want {
				t.Errorf("%q, want %q", got, want)
			}
			for n := len(form) / 2; n < len(form); n++ {
				if got := Redact("a "+form[:n], secret); got != "a [redacted]" {
					t.Errorf("cut to %q: %q", form[:n], got)
				}
			}
		})
	}
	for _, tt := range []struct {
		text    string
		secrets []string
		want    string
	}{
		{"", []string{"x"}, ""},
		{"text", nil, "text"},
		{"text", []string{""}, "text"},
		{"100% & \\more", []string{"secret"}, "100% & \\more"},
		{"&;&nosuch;%zz\\u00zz\\", []string{"secret"}, "&;&nosuch;%zz\\u00zz\\"},
		{"the long secret word", []string{"secret", "long secret word"}, "the [redacted]"},
		{"it ends in sec", []string{"secret"}, "it ends in sec"},
		{"it ends in secr", []string{"secret"}, "it ends in [redacted]"},
		{"it ends in secr%6", []string{"secret"}, "it ends in [redacted]"},
		{"it ends in secr&#10", []string{"secret"}, "it ends in [redacted]"},
		{`it ends in secr\u0`, []string{"secret"}, "it ends in [redacted]"},
		{"aaaaaaaaa.", []string{"aaaa"}, "[redacted]a."},
		{"a bad gateway", []string{"a"}, "[redacted] bad gateway"},
		{"no pass=a&user=anna", []string{"a"}, "no pass=[redacted]&user=anna"},
		{"a", []string{"a"}, "[redacted]"},
		{"pass%3Da%26", []string{"a"}, "pass%3D[redacted]%26"},
		{"HTTP 502, 50 in 2", []string{"2", "50"}, "HTTP 502, [redacted] in [redacted]"},
		{"the naïve ve", []string{"ve"}, "the naïve [redacted]"},
		{"x-y-z", []string{"-"}, "x[redacted]y[redacted]z"},
	} {
		if got := Redact(tt.text, tt.secrets...); got != tt.want {
			t.Errorf("Redact(%q, %q) = %q, want %q", tt.text, tt.secrets, got, tt.want)
		}
	}
}

func FuzzRedact(f *testing.F) {
	f.Add("GET /?t=a%2Fb&amp;c\\u0026", "a/b&c")
	f.Fuzz(func(t *testing.T, text, secret string) {
		got := Redact(text, secret)
		if len(secret) >= shortestSecret && strings.Contains(text, secret) && !strings.Contains(got, Redacted) {
			t.Errorf("Redact(%q, %q) = %q", text, secret, got)
		}
	})
}
