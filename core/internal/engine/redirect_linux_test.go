package engine

import (
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"

	"github.com/tunneld/tunneld/core/internal/listen"
	"github.com/tunneld/tunneld/internal/nettest"
)

// redirect is that of a caller in a network of the test's own.
func redirect(t *testing.T, port, target string) {
	t.Helper()
	to, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	_, of := splitTarget(t, target)
	nettest.Redirect(t, to, daemonsAddress, int(of))
}

// TestRedirectedClientsAreReset in whatever way they are refused, as the table of refusals has
// it.
func TestRedirectedClientsAreReset(t *testing.T) {
	if !nettest.Inside(t) {
		return
	}
	nettest.Own(t, "192.0.2.0/24")
	closed := nettest.FreeAddress(t)
	c := caller{kind: listen.KindRedirect, asks: asksTCP, hears: hearsTCP, redirect: redirect}
	rows := 0
	for _, f := range refusals(t) {
		if !f.applies(c) {
			continue
		}
		rows++
		t.Run(f.what, func(t *testing.T) {
			if saw := f.provoke(t, c, closed); saw != "a reset" {
				t.Errorf("the client sees %s", saw)
			}
		})
	}
	if rows < 6 {
		t.Errorf("only %d ways to be refused", rows)
	}
}

// TestRedirectListener: a client gets to where it has connected to, and may hear the server
// first; what targets it may have is checked as of clients that name theirs.
func TestRedirectListener(t *testing.T) {
	if !nettest.Inside(t) {
		return
	}
	nettest.Own(t, "198.51.100.0/24")
	greeting := nettest.Serve(t, func(c *net.TCPConn) {
		_, _ = io.WriteString(c, "220 ready")
		_, _ = io.Copy(c, c)
		_ = c.CloseWrite()
	})
	_, port := splitTarget(t, greeting)
	r := start(t, nil, func(string) string {
		return fmt.Sprintf("upstream \"direct\" \"x\" { bind = %q }\nroute \"all\" {\n match {\n  hosts = [\"127.0.0.0/8\"]\n }\n upstreams = [upstream.direct.x]\n}\nlistener \"redirect\" \"r\" {\n address = \"127.0.0.1:0\"\n allow_targets = [\"127.0.0.1\"]\n}\n", daemonsAddress)
	})
	_, own := r.at(t, "redirect.r")
	redirect(t, own, greeting)
	c := dialFrom(t, "127.0.0.1", greeting)
	heard := make([]byte, len("220 ready"))
	if _, err := io.ReadFull(c, heard); err != nil || string(heard) != "220 ready" {
		t.Fatalf("%q, %v", heard, err)
	}
	echoed(t, c)
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(c); err != nil || len(rest) > 0 {
		t.Errorf("%q, %v", rest, err)
	}
	r.log.Await(t, 1, "msg", "connection", "listener", "redirect.r", "target", greeting, "path", "direct", "reason", "client_eof")

	// Another address of this machine's, which allow_targets does not have; and one of no route.
	for target, why := range map[string]string{"127.0.0.2": "not in allow_targets", "198.51.100.7": "no route matches"} {
		at := fmt.Sprintf("%s:%d", target, port)
		wantResetFrom(t, "127.0.0.1", at, "")
		line := r.log.Await(t, 1, "msg", "connection failed", "listener", "redirect.r", "target", at, "reason", "denied")[0]
		if text := fmt.Sprint(line["err"], line["hint"]); !strings.Contains(text, why) {
			t.Errorf("%s: %s", at, text)
		}
	}
	// A client of the listener itself has no target, and the listener does not connect to
	// itself.
	wantResetFrom(t, "127.0.0.1", "127.0.0.1:"+own, "")
	line := r.log.Await(t, 1, "msg", "client handshake failed", "listener", "redirect.r", "reason", "protocol")[0]
	if text := fmt.Sprint(line["err"], line["hint"]); !strings.Contains(text, "was not redirected") || !strings.Contains(text, "a rule of nftables") {
		t.Errorf("%s", text)
	}
}
