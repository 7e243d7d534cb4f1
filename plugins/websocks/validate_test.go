package websocks

import (
	"fmt"
	"strings"
	"testing"

	"github.com/tunneld/tunneld/plugins/sdk"
	"github.com/tunneld/tunneld/plugins/sdk/sdktest"
)

func diagnose(t *testing.T, v values) []sdk.Diagnostic {
	t.Helper()
	return sdktest.Start(t, Plugin()).Validate(t, "test", v)
}

// TestValidate has each mistake, and where its diagnostic points.
func TestValidate(t *testing.T) {
	good := values{"url": "wss://gateway.example/path", "username": "alice", "password": "secret"}
	with := func(name string, v any) values {
		m := values{name: v}
		for n, v := range good {
			if _, ok := m[n]; !ok {
				m[n] = v
			}
		}
		return m
	}
	header := func(name, value string) values { return with("headers", values{name: value}) }
	for _, tt := range []struct {
		name string
		v    values
		want string // path and the summary's beginning, for each
	}{
		{"good", good, ""},
		{"no user", values{"url": "ws://h"}, ""},
		{"no path", with("url", "ws://h:8080"), ""},
		{"IPv6", with("url", "wss://[2001:db8::1]:444/x?y=z"), ""},
		{"http", with("url", "https://h"), "url: unusable url: the scheme"},
		{"no scheme", with("url", "gateway.example"), "url: unusable url: the scheme"},
		{"no host", with("url", "ws://:80/"), "url: unusable url: no host"},
		{"empty", with("url", ""), "url: unusable url: the scheme"},
		{"no URL", with("url", "ws://h%"), "url: unusable url: not a URL"},
		{"port 0", with("url", "ws://h:0"), "url: unusable url: the port"},
		{"port 65536", with("url", "ws://h:65536"), "url: unusable url: the port"},
		{"user in the url", with("url", "ws://alice:secret@h"), "url: unusable url: user name"},
		{"fragment", with("url", "ws://h/#x"), "url: unusable url: a fragment"},
		{"umlaut", with("url", "ws://bücher.example"), ""},
		{"no name", with("url", "ws://ü_b.example"), "url: unusable url: the host"},
		{"only a dot", with("url", "ws://."), "url: unusable url: no host"},
		{"space in the query", with("url", "ws://h/?a b"), "url: unusable url: the query"},
		{"tls without need", values{"url": "ws://h", "tls": values{}}, "tls: a tls block"},
		{"close_notify required", with("require_close_notify", true), ""},
		{"close_notify without TLS", values{"url": "ws://h", "require_close_notify": true}, "require_close_notify: require_close_notify, but the url is not encrypted"},
		{"a tls mistake", with("tls", values{"min_version": "1.1"}), `tls.min_version: Wrong value for "min_version"`},
		{"not verified", with("tls", values{"insecure_skip_verify": true}), "warning tls.insecure_skip_verify: the far end"},
		{"colon", with("username", "a:b"), "username: a user name cannot contain a colon"},
		{"line break in the name", with("username", "alice\n"), "username: username ends in a line break"},
		{"space", with("username", " alice"), "username: the user name begins"},
		{"password alone", values{"url": "ws://h", "password": "x"}, `password: "password" without "username"`},
		{"user alone", values{"url": "ws://h", "username": "x"}, `username: "username" without "password"`},
		{"line break in the password", with("password", "secret\n"), "warning password: password ends in a line break"},
		{"no time", with("timeouts", values{"connect": "0s", "handshake": "0s"}), "timeouts.connect: \"connect\" is out of range\ntimeouts.handshake: \"handshake\" is out of range"},
		{"header", header("X-Api-Key", "k"), ""},
		{"host", header("hOST", "app.example:8443"), ""},
		{"header's name", header("X Key", "k"), "headers.X Key: not the name"},
		{"header's value", header("X-Key", "k\r\nX-Other: 1"), "headers.X-Key: the header's value"},
		{"own header", header("sec-websocket-key", "k"), "headers.sec-websocket-key: the header Sec-WebSocket-Key belongs"},
		{"body", header("Content-Length", "0"), "headers.Content-Length: the header Content-Length belongs"},
		{"two Authorizations", header("Authorization", "Bearer x"), "headers.Authorization: the header is made"},
		{"another Authorization", values{"url": "ws://h", "headers": values{"Authorization": "Bearer x"}}, ""},
		{"host with a path", header("Host", "h/path"), "headers.Host: not a host"},
		{"host with spaces", header("Host", "h x"), "headers.Host: not a host"},
		{"twice", with("headers", values{"X-A": "1", "x-a": "2"}), "headers.x-a: the header is given twice"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			for _, d := range diagnose(t, tt.v) {
				line := strings.Join(d.Path, ".") + ": " + d.Summary
				if d.Warning {
					line = "warning " + line
				}
				if d.Detail == "" {
					t.Errorf("%s: no next step", line)
				}
				if strings.Contains(fmt.Sprint(d), "secret") {
					t.Errorf("the diagnostic shows the password: %+v", d)
				}
				got = append(got, line)
			}
			want := strings.Split(tt.want, "\n")
			if tt.want == "" {
				want = nil
			}
			if len(got) != len(want) {
				t.Fatalf("diagnostics %q, want %q", got, want)
			}
			for i := range got {
				if !strings.HasPrefix(got[i], want[i]) {
					t.Errorf("diagnostic %q, want %q", got[i], want[i])
				}
			}
		})
	}
}

// TestParseURL has what is made of good ones.
func TestParseURL(t *testing.T) {
	for url, want := range map[string]farEnd{
		"ws://h":                         {false, "h:80", "h", "h", "/"},
		"wss://h":                        {true, "h:443", "h", "h", "/"},
		"WSS://h:443/":                   {true, "h:443", "h", "h", "/"},
		"wss://h:80/a/b?c=d&e":           {true, "h:80", "h", "h:80", "/a/b?c=d&e"},
		"ws://[::1]:8080/ä":              {false, "[::1]:8080", "::1", "[::1]:8080", "/%C3%A4"},
		"wss://bücher.example:444":       {true, "xn--bcher-kva.example:444", "xn--bcher-kva.example", "xn--bcher-kva.example:444", "/"},
		"wss://db.corp.":                 {true, "db.corp.:443", "db.corp", "db.corp", "/"},
		"wss://[fe80::1%25eth0]/a%2Fb//": {true, "[fe80::1%eth0]:443", "fe80::1", "[fe80::1]", "/a%2Fb//"},
	} {
		if got, err := parseURL(url); err != nil || got != want {
			t.Errorf("parseURL(%q) = %+v, %v; want %+v", url, got, err, want)
		}
	}
}

// TestSchema keeps names, types and defaults as the configuration's page has
// them, and the password out of sight.
func TestSchema(t *testing.T) {
	schema := sdktest.Start(t, Plugin()).Schema()
	var got []string
	for _, a := range schema.GetAttributes() {
		s := a.GetName() + " " + a.GetType().GetKind().Text()
		if a.GetRequired() {
			s += " required"
		}
		if a.GetSensitive() {
			s += " sensitive"
		}
		if a.GetDoc() == "" {
			t.Errorf("%s has no doc", a.GetName())
		}
		got = append(got, s)
	}
	for _, b := range schema.GetBlocks() {
		got = append(got, b.GetName()+" block")
	}
	want := "url string required, username string, password string sensitive, headers map sensitive, require_close_notify bool, tls block, timeouts block"
	if strings.Join(got, ", ") != want {
		t.Errorf("schema %q, want %q", strings.Join(got, ", "), want)
	}
}
