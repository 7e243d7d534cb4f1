package soht

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/tunneld/tunneld/plugins/sdk"
	"github.com/tunneld/tunneld/plugins/sdk/sdktest"
)

func TestValidation(t *testing.T) {
	p := sdktest.Start(t, Plugin())
	ok := values{"url": "https://host/soht/service"}
	for _, tt := range []struct {
		name    string
		v       values
		path    string // of the only diagnostic; empty: none
		warning bool
	}{
		{"defaults", ok, "", false},
		{"everything", values{
			"url": "https://host/x?y=z", "mode": "stateless", "username": "u", "password": "secret", "write_size": "64KiB",
			"via": "http://u:secret@proxy:3128", "headers": values{"X-A": "b", "Host": "other", "User-Agent": "z"},
			"tls": values{"min_version": "1.3"}, "timeouts": values{"connect": "1s", "handshake": "2s"},
		}, "", false},
		{"no scheme", values{"url": "host/soht"}, "url", false},
		{"another scheme", values{"url": "ftp://host/soht"}, "url", false},
		{"no host", values{"url": "http:///soht"}, "url", false},
		{"a host beyond ASCII", values{"url": "http://bücher.example/soht"}, "", false},
		{"a host that is no name", values{"url": "http://ü_b/soht"}, "url", false},
		{"via beyond ASCII", values{"url": ok["url"], "via": "http://bücher.example:1"}, "", false},
		{"via no name", values{"url": ok["url"], "via": "http://u:secret@ü_b:1"}, "via", false},
		{"a server's name that is none", values{"url": ok["url"], "tls": values{"server_name": "ü_b"}}, "tls.server_name", false},
		{"not a URL", values{"url": "http://[::1/soht"}, "url", false},
		{"credentials in the URL", values{"url": "http://u:secret@host/soht"}, "url", false},
		{"a fragment", values{"url": "http://host/soht#x"}, "url", false},
		{"a login in the clear, to here", values{"url": "http://127.0.0.2:8080/soht", "username": "u", "password": "secret"}, "", false},
		{"a login in the clear", values{"url": "http://host/soht", "username": "u", "password": "secret"}, "url", true},
		{"CONNECT", values{"url": "http://host/soht", "via": "http://proxy:1", "via_connect": true}, "", false},
		{"CONNECT with https", values{"url": ok["url"], "via_connect": true}, "via_connect", true},
		{"tls without https", values{"url": "http://host/soht", "tls": values{}}, "tls", false},
		{"unknown mode", values{"url": ok["url"], "mode": "fast"}, "mode", false},
		{"no password", values{"url": ok["url"], "username": "u"}, "username", false},
		{"no username", values{"url": ok["url"], "password": "secret"}, "password", false},
		{"a password with its file's line break", values{"url": ok["url"], "username": "u", "password": "secret\n"}, "password", true},
		{"write_size 0", values{"url": ok["url"], "write_size": 0}, "write_size", false},
		{"write_size too large", values{"url": ok["url"], "write_size": 65537}, "write_size", false},
		{"via another proxy", values{"url": ok["url"], "via": "ftp://u:secret@proxy:1"}, "via", false},
		{"via without host", values{"url": ok["url"], "via": "http://:3128"}, "via", false},
		{"via with a path", values{"url": ok["url"], "via": "http://u:secret@proxy:1/x"}, "via", false},
		{"via unreadable", values{"url": ok["url"], "via": "http://u:se%zzcret@proxy:1"}, "via", false},
		{"a header of ours", values{"url": ok["url"], "headers": values{"content-type": "x"}}, "headers.content-type", false},
		{"a header that makes writes repeatable", values{"url": ok["url"], "headers": values{"idempotency-key": "x"}}, "headers.idempotency-key", false},
		{"its other name", values{"url": ok["url"], "headers": values{"X-Idempotency-Key": "x"}}, "headers.X-Idempotency-Key", false},
		{"a header that is none", values{"url": ok["url"], "headers": values{"a b": "x"}}, "headers.a b", false},
		{"a header with a line end", values{"url": ok["url"], "headers": values{"A": "secret\r\nB: c"}}, "headers.A", false},
		{"no time to connect", values{"url": ok["url"], "timeouts": values{"connect": "0s"}}, "timeouts.connect", false},
		{"no time for the handshake", values{"url": ok["url"], "timeouts": values{"handshake": "0s"}}, "timeouts.handshake", false},
		{"no such file", values{"url": ok["url"], "tls": values{"ca_file": "/nonexistent"}}, "tls.ca_file", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ds := p.TryConfigure(t, "test", tt.v)
			var want []string
			if tt.path != "" {
				want = []string{tt.path}
			}
			var got []string
			for _, d := range ds {
				got = append(got, strings.Join(d.Path, "."))
				if d.Warning != tt.warning || d.Summary == "" || d.Detail == "" || strings.Contains(fmt.Sprint(d), "secret") {
					t.Errorf("got %+v", d)
				}
			}
			if !slices.Equal(got, want) {
				t.Errorf("diagnostics at %v, want %v", got, want)
			}
		})
	}
}

func TestSchema(t *testing.T) {
	b, err := sdk.SchemaOf(new(Config))
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range b.GetAttributes() {
		if a.GetDoc() == "" {
			t.Errorf("%s has no documentation", a.GetName())
		}
		secret := slices.Contains([]string{"password", "via", "headers"}, a.GetName())
		if a.GetSensitive() != secret {
			t.Errorf("%s is sensitive: %v", a.GetName(), a.GetSensitive())
		}
	}
}

// Only an open read keeps a thread of the server.
func TestDefaults(t *testing.T) {
	for mode, want := range map[string]int{modeStateful: 100, modeStateless: 0} {
		if got := (&Config{Mode: mode}).Defaults(); got.MaxConnections != want || got.HalfClose != 0 {
			t.Errorf("%s: %+v", mode, got)
		}
	}
}
