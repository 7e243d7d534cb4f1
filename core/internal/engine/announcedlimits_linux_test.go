package engine

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestAnnouncedLimits: the limits of a source are those of the address in the header, and the
// client is told in its protocol.
func TestAnnouncedLimits(t *testing.T) {
	for limit, lines := range map[string]string{"limits.max_per_source": "max_per_source = 1", "limits.max_rate": "max_rate = 1"} {
		r := start(t, nil, func(echo string) string { return behindBalancer(echo, "", " limits {\n  "+lines+"\n }\n") })
		for _, kind := range behind {
			for _, client := range []string{"192.0.2.7", "192.0.2.8"} {
				r.visitBehind(t, kind, headerOf(1, client))
			}
			r.visitBehind(t, kind, headerLocal)
			at, _ := r.at(t, kind+".a")
			asks, _ := asksFor(t, kind, r.echo)
			c := dialFrom(t, balancer, at[0])
			if _, err := io.WriteString(c, headerOf(2, "192.0.2.7")+asks); err != nil {
				t.Fatal(err)
			}
			heard, err := io.ReadAll(c)
			switch kind {
			case "tcp":
				if !errors.Is(err, syscall.ECONNRESET) || len(heard) > 0 {
					t.Errorf("%s, tcp: heard %q, %v", limit, heard, err)
				}
			case "socks5":
				if err != nil || hearsSOCKS5(heard) != "reply 01, general SOCKS server failure" {
					t.Errorf("%s, socks5: heard % x, %v", limit, heard, err)
				}
			case "http":
				if err != nil || !strings.HasPrefix(string(heard), "HTTP/1.1 503 ") {
					t.Errorf("%s, http: heard %q, %v", limit, heard, err)
				}
			}
			line := r.log.Await(t, 1, "msg", "connection failed", "listener", kind+".a", "client", "192.0.2.7:51442")[0]
			if text := fmt.Sprint(line["err"]); !strings.HasPrefix(text, limit) || !strings.HasSuffix(text, "from 192.0.2.7") {
				t.Errorf("the line is %v", line)
			}
			if got := r.series(t, fmt.Sprintf("tunneld_connections_refused_total{limit=%q,listener=%q}", limit, kind+".a")); got != "1" {
				t.Errorf("%s: %s are refused by %s", kind, got, limit)
			}
		}
	}
}

// TestAnnouncedBeyondALimit: a client that finds no slot is told so in its protocol, behind
// its header.
func TestAnnouncedBeyondALimit(t *testing.T) {
	r := start(t, nil, func(echo string) string { return behindBalancer(echo, "", " limits {\n  max_connections = 1\n }\n") })
	for kind, want := range map[string]string{"tcp": "", "socks5": "\x05\x00" + "\x05\x01", "http": "HTTP/1.1 503 "} {
		r.visitBehind(t, kind, headerLocal)
		at, _ := r.at(t, kind+".a")
		c := dialFrom(t, balancer, at[0])
		asks, _ := asksFor(t, kind, r.echo)
		if _, err := io.WriteString(c, headerOf(2, "192.0.2.7")+asks); err != nil && kind != "tcp" {
			t.Fatal(err)
		}
		heard, err := io.ReadAll(c)
		if !strings.HasPrefix(string(heard), want) || err != nil && kind != "tcp" {
			t.Errorf("%s: heard %q, %v; want %q", kind, heard, err, want)
		}
		r.log.Await(t, 1, "msg", "connection failed", "listener", kind+".a", "reason", "unavailable")
	}
}

// TestAnnouncedInHandshake: a client whose header has not come is in its handshake: it is
// reset when its time is over, makes room for others, and is not among those of the balancer.
func TestAnnouncedInHandshake(t *testing.T) {
	r := start(t, nil, func(echo string) string {
		return behindBalancer(echo, "", " limits {\n  max_connections = 2\n  max_per_source = 1\n }\n timeouts {\n  handshake = \"0s\"\n }\n")
	})
	for _, kind := range behind {
		at, _ := r.at(t, kind+".a")
		silent := func(says string, open int) net.Conn {
			t.Helper()
			c := dialFrom(t, balancer, at[0])
			if _, err := io.WriteString(c, says); err != nil {
				t.Fatal(err)
			}
			r.comesTo(t, kind, open)
			return c
		}
		first, second := silent("", 1), silent("PROXY TCP4", 2)
		newcomer := r.visitBehind(t, kind, headerLocal)
		reset(t, first)
		other := r.visitBehind(t, kind, headerOf(1, "192.0.2.7"))
		reset(t, second)
		newcomer.Close()
		other.Close()
		r.comesTo(t, kind, 0)
	}
}

// reset expects that a client reads nothing but a reset.
func reset(t *testing.T, c net.Conn) {
	t.Helper()
	if n, err := c.Read(make([]byte, 1)); n > 0 || !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("it reads %v, and not a reset", err)
	}
}

// comesTo waits until a listener of a kind has so many connections.
func (r *rig) comesTo(t *testing.T, kind string, open int) {
	t.Helper()
	for deadline := time.Now().Add(patience); r.slots.open(kind+".a") != open; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: %d connections are open, want %d", kind, r.slots.open(kind+".a"), open)
		}
	}
}
