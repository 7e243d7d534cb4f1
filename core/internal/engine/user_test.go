package engine

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/tunneld/tunneld/core/diag"
	"github.com/tunneld/tunneld/core/internal/config"
	"github.com/tunneld/tunneld/core/internal/listen"
	"github.com/tunneld/tunneld/internal/bare"
	"github.com/tunneld/tunneld/internal/nettest"
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
	return startWith(t, nil, text, func(o *Options) {
		o.parse = func(path string) (*config.Config, diag.Diagnostics) {
			cfg, diags := config.Parse(path)
			for i, l := range cfg.Listeners {
				if l.Protocol != nil {
					cfg.Listeners[i].Protocol = knowing{l.Protocol, who}
				}
			}
			return cfg, diags
		}
	})
}

// TestUserInTheLog: the lines of a connection name its user, if it has one, fit to be read.
func TestUserInTheLog(t *testing.T) {
	r := startKnowing(t, ahead, func(string) string {
		return "upstream \"direct\" \"x\" {}\nroute \"all\" {\n match {\n  hosts = [\"127.0.0.1\"]\n }\n upstreams = [upstream.direct.x]\n}\n" +
			"listener \"socks5\" \"a\" {\n address = \"127.0.0.1:0\"\n" + nettest.OpenTargets + "}\n"
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

// maxUsers has a listener of each kind on which a user may have so many connections.
func maxUsers(echo string, most int) string {
	return guarded(echo, "127.0.0.1:0", fmt.Sprintf(" limits {\n  max_per_user = %d\n }\n", most))
}

// openOf is how many connections of a user are counted, over all listeners.
func (r *rig) openOf(user string) (n int) {
	r.slots.mu.Lock()
	defer r.slots.mu.Unlock()
	for key, open := range r.slots.user {
		if key.user == user {
			n += open
		}
	}
	return n
}

// TestMaxPerUser: a user with as many connections as allowed gets no other one on the
// listener, and hears why as far as its protocol has a word; other users do, and so does
// the user when one has ended.
func TestMaxPerUser(t *testing.T) {
	r := startKnowing(t, func(q listen.Request) string { return cmp.Or(ahead(q), "carol") }, func(echo string) string { return maxUsers(echo, 2) })
	socks, _ := r.at(t, "socks5.a")
	web, _ := r.at(t, "http.a")
	plain, _ := r.at(t, "tcp.a")
	open := func(user string) net.Conn {
		t.Helper()
		c, code := askFor(t, "127.0.0.1", socks[0], r.echo, user)
		if code != socks5.Succeeded {
			t.Fatalf("%s: reply %d", user, code)
		}
		return c
	}
	first := open("alice")
	open("alice")
	open("Alice")
	open("bob")
	c, code := askFor(t, "127.0.0.2", socks[0], r.echo, "alice")
	c.Close()
	if code != socks5.GeneralFailure {
		t.Errorf("the third of alice: reply %d", code)
	}
	const why = "limits.max_per_user: 2 connections of user alice are open"
	line := r.log.Await(t, 1, "level", "WARN", "msg", "connection failed", "listener", "socks5.a", "user", "alice", "reason", "unavailable")[0]
	if line["err"] != why {
		t.Errorf("the line is %v", line)
	}

	// Each listener has its own count.
	for i := range 3 {
		c := dialFrom(t, "", web[0])
		if _, err := fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\n\r\nalice", r.echo); err != nil {
			t.Fatal(err)
		}
		heard := make([]byte, 4096)
		n, err := io.ReadAtLeast(c, heard, len("HTTP/1.1 200 Connection established\r\n\r\n"))
		answer := string(heard[:n])
		switch {
		case err != nil:
			t.Fatal(err)
		case i < 2 && !strings.HasPrefix(answer, "HTTP/1.1 200 "):
			t.Fatalf("client %d: %q", i, answer)
		case i == 2:
			rest, err := io.ReadAll(c)
			if answer += string(rest); err != nil || !strings.HasPrefix(answer, "HTTP/1.1 503 ") || !strings.Contains(answer, "\n"+why+"\n") {
				t.Errorf("the third of alice: %q, %v", answer, err)
			}
		}
	}
	echoed(t, dialFrom(t, "", plain[0]))
	echoed(t, dialFrom(t, "", plain[0]))
	wantReset(t, plain[0])
	for _, kind := range []string{"socks5", "http", "tcp"} {
		if got := r.series(t, fmt.Sprintf("tunneld_connections_refused_total{limit=\"limits.max_per_user\",listener=%q}", kind+".a")); got != "1" {
			t.Errorf("%s: %q are refused, want 1", kind, got)
		}
	}

	first.Close()
	r.log.Await(t, 1, "msg", "connection", "listener", "socks5.a", "user", "alice")
	open("alice")
	r.reload(t, maxUsers(r.echo, 3))
	open("alice")
	if _, code := askFor(t, "", socks[0], r.echo, "alice"); code != socks5.GeneralFailure {
		t.Errorf("the fourth of alice: reply %d", code)
	}
	// They are beyond a lower limit, and stay; nobody gets in until they have gone.
	r.reload(t, maxUsers(r.echo, 1))
	if _, code := askFor(t, "", socks[0], r.echo, "alice"); code != socks5.GeneralFailure || r.openOf("alice") != 3+2 {
		t.Errorf("beyond a lower limit: reply %d, %d of alice are open", code, r.openOf("alice"))
	}
}

// TestMaxPerUserIsExact: of clients that all come at once each user gets as many in as its
// listener allows, and when all have gone, in whatever way, nothing is counted any more.
func TestMaxPerUserIsExact(t *testing.T) {
	const most, each = 3, 8
	r := startKnowing(t, ahead, func(echo string) string { return maxUsers(echo, most) })
	at, _ := r.at(t, "socks5.a")
	for round := range 4 {
		var clients sync.WaitGroup
		var mu sync.Mutex
		in := map[string]int{}
		var held []net.Conn
		for _, user := range []string{"alice", "bob", ""} {
			for i := range each {
				clients.Go(func() {
					c, err := connect(t.Context(), "127.0.0.1", at[0])
					if err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					held = append(held, c)
					mu.Unlock()
					code, err := ask(c, r.echo, user)
					switch {
					case err != nil:
						t.Errorf("%q: %v", user, err)
					case code == socks5.Succeeded:
						mu.Lock()
						in[user]++
						mu.Unlock()
					case code != socks5.GeneralFailure:
						t.Errorf("%q, client %d: reply %d", user, i, code)
					}
				})
			}
		}
		clients.Go(func() { r.reload(t, maxUsers(r.echo, most)) })
		clients.Wait()
		for user, want := range map[string]int{"alice": most, "bob": most, "": each} {
			if in[user] != want {
				t.Errorf("round %d: %d of %q got in, want %d", round, in[user], user, want)
			}
		}
		for i, c := range held {
			if i%2 == 0 {
				bare.Reset(c)
				continue
			}
			c.Close()
		}
		r.log.Await(t, (round+1)*(2*most+each), "msg", "connection")
		if n := r.openOf("alice") + r.openOf("bob") + r.openOf(""); n != 0 || len(r.slots.user) != 0 {
			t.Fatalf("round %d: %d are counted that have gone", round, n)
		}
	}
}

// TestUserIsForgotten: a connection that gets no tunnel is not counted any more as soon as
// its client is told, however long that stays, and neither is one that has made room.
func TestUserIsForgotten(t *testing.T) {
	r := startKnowing(t, ahead, func(echo string) string {
		return "upstream \"direct\" \"x\" {}\nroute \"all\" {\n match {\n  users = [\"alice\"]\n  hosts = [\"127.0.0.0/8\"]\n }\n upstreams = [upstream.direct.x]\n}\n" +
			"listener \"socks5\" \"a\" {\n address = \"127.0.0.1:0\"\n" + nettest.OpenTargets + " limits {\n  max_per_user = 1\n  max_connections = 1\n }\n}\n"
	})
	at, _ := r.at(t, "socks5.a")
	for i, target := range []string{"192.0.2.1:1", "127.0.0.1:1", "192.0.2.1:1", r.echo} {
		c, code := askFor(t, "127.0.0.1", at[0], target, "alice")
		if want := []socks5.Code{socks5.NotAllowed, socks5.ConnectionRefused, socks5.NotAllowed, socks5.Succeeded}[i]; code != want {
			t.Fatalf("%s: reply %d, want %d", target, code, want)
		}
		if i < 3 {
			continue // it does not leave, and makes room for the next
		}
		c.Close()
		r.log.Await(t, 1, "msg", "connection", "user", "alice", "route", "all")
	}
	if _, code := askFor(t, "127.0.0.1", at[0], r.echo, "bob"); code != socks5.NotAllowed {
		t.Errorf("bob, of whom no route knows: reply %d", code)
	}
	r.connections.Wait()
	if n := len(r.slots.user); n != 0 {
		t.Errorf("%d users are counted that have gone", n)
	}
}

// TestUsersOfLogins: who has logged in is the user of routes, limits and the log.
func TestUsersOfLogins(t *testing.T) {
	r := start(t, nil, func(string) string {
		const more = " address = \"127.0.0.1:0\"\n allow_targets = [\"127.0.0.1\"]\n auth {\n  users = {\n   alice = \"a\"\n   bob = \"b\"\n  }\n }\n limits {\n  max_per_user = 1\n }\n"
		return "upstream \"direct\" \"x\" {}\nroute \"alice\" {\n match {\n  users = [\"alice\"]\n }\n upstreams = [upstream.direct.x]\n}\n" +
			"listener \"socks5\" \"a\" {\n" + more + "}\nlistener \"http\" \"a\" {\n" + more + "}\n"
	})
	socks, _ := r.at(t, "socks5.a")
	web, _ := r.at(t, "http.a")
	for i, want := range []struct {
		user, password string
		code           socks5.Code
		status         int
	}{{"alice", "a", socks5.Succeeded, 200}, {"bob", "b", socks5.NotAllowed, 403}, {"alice", "a", socks5.GeneralFailure, 503}} {
		_, in, code := logIn(t, "127.0.0.1", socks[0], want.user, want.password, r.echo)
		if !in || code != want.code {
			t.Errorf("%d, %s: logged in %v, reply %d, want %d", i, want.user, in, code, want.code)
		}
		if _, res := connectAs(t, "127.0.0.1", web[0], want.user, want.password, r.echo); res.StatusCode != want.status {
			t.Errorf("%d, %s: status %d, want %d", i, want.user, res.StatusCode, want.status)
		}
	}
	for _, kind := range []string{"socks5", "http"} {
		r.log.Await(t, 1, "msg", "connection failed", "listener", kind+".a", "user", "bob", "reason", "denied")
		r.log.Await(t, 1, "msg", "connection failed", "listener", kind+".a", "user", "alice", "reason", "unavailable", "err", "limits.max_per_user: 1 connections of user alice are open")
	}
}
