package engine

import (
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/tunneld/tunneld/internal/nettest"
)

// hello is what a client of each kind of listener says first.
var hello = map[string]string{
	"tcp":    "",
	"socks5": "\x05\x01\x00",
	"http":   "CONNECT 192.0.2.1:1 HTTP/1.1\r\n\r\n",
	"sni":    "\x16\x03\x01\x02\x00\x01",
}

// guarded has a listener of each kind with what more says.
func guarded(echo, address, more string) string {
	text := "metrics {\n address = \"127.0.0.1:0\"\n}\nupstream \"direct\" \"x\" {}\nroute \"all\" {\n upstreams = [upstream.direct.x]\n}\n"
	for kind := range hello {
		target := nettest.OpenTargets
		if kind == "tcp" {
			target = fmt.Sprintf(" target = %q\n", echo)
		}
		text += fmt.Sprintf("listener %q \"a\" {\n address = %q\n%s%s}\n", kind, address, target, more)
	}
	return text
}

// series is the value of a series of the metrics, as the page has it; empty: it is absent.
func (r *rig) series(t *testing.T, name string) string {
	t.Helper()
	_, page := get(t, r.metricsSockets()[0].bound(), "/metrics")
	_, rest, _ := strings.Cut(page, "\n"+name+" ")
	value, _, _ := strings.Cut(rest, "\n")
	return value
}

// TestWhoMayComeIn: a client whose address a listener does not want is reset before it has
// read a byte, whatever it has said, and nothing is held of it; deny is asked before allow.
func TestWhoMayComeIn(t *testing.T) {
	needIPv6(t)
	// It has all addresses, so that an IPv4 client's is an IPv4-mapped one to the system.
	r := start(t, nil, func(echo string) string {
		return guarded(echo, "[::]:0", " allow = [\"127.0.0.0/29\", \"127.0.9.1\"]\n deny = [\"::ffff:127.0.0.4/127\"]\n limits {\n  max_connections = 1\n }\n")
	})
	_, port := r.at(t, "tcp.a")
	visitFrom := func(source string) {
		t.Helper()
		c := dialFrom(t, source, net.JoinHostPort("127.0.0.1", port))
		defer c.Close()
		echoed(t, c)
	}
	for kind, say := range hello {
		_, port := r.at(t, kind+".a")
		for source, list := range map[string]string{"127.0.0.4": byDeny, "127.0.0.5": byDeny, "127.0.0.8": byAllow, "127.0.9.2": byAllow, "::1": byAllow} {
			host := "127.0.0.1"
			if source == "::1" {
				host = source
			}
			wantResetFrom(t, source, net.JoinHostPort(host, port), say)
			r.log.Await(t, 1, "level", "INFO", "msg", "client may not come in", "listener", kind+".a", "reason", list)
		}
		for list, want := range map[string]string{byDeny: "2", byAllow: "3"} {
			if got := r.series(t, fmt.Sprintf("tunneld_connections_refused_total{limit=%q,listener=%q}", list, kind+".a")); got != want {
				t.Errorf("%s: %s clients are kept out by %s, want %s", kind, got, list, want)
			}
		}
		if n := r.slots.open(kind + ".a"); n != 0 {
			t.Errorf("%s: %d slots are taken", kind, n)
		}
	}
	for i, source := range []string{"127.0.0.1", "127.0.0.3", "127.0.0.6", "127.0.9.1"} {
		visitFrom(source)
		r.log.Await(t, i+1, "msg", "connection", "listener", "tcp.a")
	}
	line := r.log.Await(t, 1, "msg", "client may not come in", "listener", "http.a", "reason", byDeny)[0]
	if hint := fmt.Sprint(line["hint"]); !strings.HasPrefix(fmt.Sprint(line["client"]), "127.0.0.") || !strings.Contains(hint, "out of deny") {
		t.Errorf("the line is %v", line)
	}
}

// TestDeniedTakeNoSlot: whoever may not come in is in nobody's way, however often it tries,
// and does not fill the log.
func TestDeniedTakeNoSlot(t *testing.T) {
	r := start(t, nil, func(echo string) string {
		return guarded(echo, "127.0.0.1:0", " allow = [\"127.0.0.1\"]\n limits {\n  max_connections = 1\n }\n")
	})
	at, _ := r.at(t, "tcp.a")
	const times = 3 * repeatsLogged
	for range times {
		wantResetFrom(t, "127.0.0.2", at[0], "")
	}
	c := dialFrom(t, "127.0.0.1", at[0])
	echoed(t, c)
	wantResetFrom(t, "127.0.0.2", at[0], "")
	echoed(t, c)
	for name, want := range map[string]string{
		`tunneld_connections_refused_total{limit="allow",listener="tcp.a"}`: fmt.Sprint(times + 1),
		`tunneld_connections_total{listener="tcp.a"}`:                       "1",
		`tunneld_connections_active{listener="tcp.a"}`:                      "1",
	} {
		if got := r.series(t, name); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
	if n := len(r.log.Matching("msg", "client may not come in")); n != repeatsLogged {
		t.Errorf("%d lines are in the log, want %d", n, repeatsLogged)
	}
}

// TestReloadOfWhoMayComeIn: new lists are those of new connections, and a tunnel that is
// open goes on.
func TestReloadOfWhoMayComeIn(t *testing.T) {
	r := start(t, nil, func(echo string) string { return guarded(echo, "127.0.0.1:0", "") })
	at, _ := r.at(t, "tcp.a")
	old := dialFrom(t, "127.0.0.2", at[0])
	echoed(t, old)
	for _, lists := range []string{"allow = [\"127.0.0.1\"]", "deny = [\"127.0.0.2\"]"} {
		said := r.reload(t, guarded(r.echo, "127.0.0.1:0", " "+lists+"\n"))
		wantResetFrom(t, "127.0.0.2", at[0], "")
		visit(t, at[0])
		echoed(t, old)
		if said != "" {
			t.Errorf("a reload says %q", said)
		}
	}
	r.reload(t, guarded(r.echo, "127.0.0.1:0", ""))
	echoed(t, dialFrom(t, "127.0.0.2", at[0]))
	echoed(t, old)
}
