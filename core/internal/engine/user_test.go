package engine

import (
	"context"
	"strings"
	"testing"

	"github.com/tunneld/tunneld/core/diag"
	"github.com/tunneld/tunneld/core/internal/config"
	"github.com/tunneld/tunneld/core/internal/listen"
	"github.com/tunneld/tunneld/internal/socks5"
)

// knowing is a protocol whose clients have shown to be whoever who says.
type knowing struct {
	listen.Protocol
	who func(listen.Request) string
}

func (k knowing) Learn(ctx context.Context, c *listen.Conn) (listen.Request, *listen.Failure) {
	r, fail := k.Protocol.Learn(ctx, c)
	if fail == nil {
		r.User = k.who(r)
	}
	return r, fail
}

// ahead is who of clients that say their name behind their request.
func ahead(r listen.Request) string { return string(r.Ahead) }

// startKnowing is start with listeners whose clients are whoever who says.
func startKnowing(t *testing.T, who func(listen.Request) string, text func(echo string) string) *rig {
	t.Helper()
	return startParsed(t, nil, text, func(path string) (*config.Config, diag.Diagnostics) {
		cfg, diags := config.Parse(path)
		for i, l := range cfg.Listeners {
			if l.Protocol != nil {
				cfg.Listeners[i].Protocol = knowing{l.Protocol, who}
			}
		}
		return cfg, diags
	})
}

// TestUserInTheLog: the lines of a connection name its user, if it has one, fit to be read.
func TestUserInTheLog(t *testing.T) {
	r := startKnowing(t, ahead, func(string) string {
		return "upstream \"direct\" \"x\" {}\nroute \"all\" {\n match {\n  hosts = [\"127.0.0.1\"]\n }\n upstreams = [upstream.direct.x]\n}\n" +
			"listener \"socks5\" \"a\" {\n address = \"127.0.0.1:0\"\n}\n"
	})
	at, _ := r.at(t, "socks5.a")
	for user, shown := range map[string]string{
		"alice":                  "alice",
		"spiffe://corp/ns/db":    "spiffe://corp/ns/db",
		"a\x1b[31m\nb\u202e":     "a [31m b\ufffd",
		strings.Repeat("ü", 200): strings.Repeat("ü", 127) + "…",
		"https://corp/?id=7":     "https://corp/?id=7",
	} {
		c, code := askFor(t, "127.0.0.1", at[0], r.echo, user)
		if code != socks5.Succeeded {
			t.Fatalf("%q: reply %d", user, code)
		}
		c.Close()
		r.log.Await(t, 1, "msg", "connection", "user", shown)
		if c, code = askFor(t, "127.0.0.1", at[0], "192.0.2.1:1", user); code != socks5.NotAllowed {
			t.Fatalf("%q: reply %d", user, code)
		}
		c.Close()
		r.log.Await(t, 1, "msg", "connection failed", "user", shown)
	}
	c, _ := askFor(t, "127.0.0.1", at[0], r.echo, "")
	c.Close()
	for _, line := range r.log.Await(t, 6, "msg", "connection") {
		if user, given := line["user"]; given && user == "" {
			t.Errorf("the user of nobody is in the log: %v", line)
		}
	}
	if n := len(r.log.Matching("msg", "connection", "user", "<nil>")); n != 1 {
		t.Errorf("%d lines have no user, want 1", n)
	}
}
