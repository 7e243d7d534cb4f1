package engine

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/fdtest"
	"github.com/tunneld/tunneld/internal/nettest"
)

// balancer is the address of what passes connections on in these tests: Linux has all of
// 127.0.0.0/8 on loopback.
const balancer = "127.0.0.2"

// accepting are the lines of a listener that is behind the balancer.
const accepting = " proxy_protocol { accept_from = [\"" + balancer + "\"] }\n"

// behind are the kinds of the listeners that are behind the balancer.
var behind = []string{"tcp", "socks5", "http"}

// headerLocal is of a connection of the balancer's own.
const headerLocal = "\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"

// headerOf is a header of version 1 or 2 of a client at an address.
func headerOf(version int, client string) string {
	if version == 1 {
		return "PROXY TCP4 " + client + " 198.51.100.1 51442 443\r\n"
	}
	return "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c" + string(net.ParseIP(client).To4()) + "\xc6\x33\x64\x01\xc8\xf2\x01\xbb"
}

// behindBalancer has a listener of each of these kinds, with more lines,
// and one route, with a match.
func behindBalancer(echo, match, more string) string {
	text := "metrics {\n address = \"127.0.0.1:0\"\n}\nupstream \"direct\" \"x\" {}\nroute \"all\" {\n" + match + " upstreams = [upstream.direct.x]\n}\n"
	for _, kind := range behind {
		target := nettest.OpenTargets
		if kind == "tcp" {
			target = fmt.Sprintf(" target = %q\n", echo)
		}
		text += fmt.Sprintf("listener %q \"a\" {\n address = \"127.0.0.1:0\"\n%s%s%s}\n", kind, target, accepting, more)
	}
	return text
}

// asksFor is what a client of each kind of listener sends for target, and hears when it is
// connected.
func asksFor(t *testing.T, kind, target string) (asks, hears string) {
	t.Helper()
	switch kind {
	case "socks5":
		return asksSOCKS5(t, target, "", ""), "\x05\x00\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00"
	case "http":
		return asksHTTP(t, target, "", ""), "HTTP/1.1 200 Connection established\r\n\r\n"
	}
	return "", ""
}

// visitBehind has something echoed to a client of the balancer's.
func (r *rig) visitBehind(t *testing.T, kind, header string) net.Conn {
	t.Helper()
	at, _ := r.at(t, kind+".a")
	c := dialFrom(t, balancer, at[0])
	asks, hears := asksFor(t, kind, r.echo)
	if _, err := io.WriteString(c, header+asks+"hello"); err != nil {
		t.Fatal(err)
	}
	heard := make([]byte, len(hears)+len("hello"))
	if n, err := io.ReadFull(c, heard); err != nil || string(heard) != hears+"hello" {
		t.Fatalf("%s: heard %q, %v", kind, heard[:n], err)
	}
	return c
}

// TestAnnouncedClients: the address in the header is the client's, for routes and the log, on
// listeners of every kind; that of a connection of the balancer's own is the balancer's. Who
// is not in accept_from comes as ever.
func TestAnnouncedClients(t *testing.T) {
	r := start(t, nil, func(echo string) string {
		return behindBalancer(echo, " match {\n  sources = [\"192.0.2.0/24\", \""+balancer+"\", \"127.0.0.3\"]\n }\n", "")
	})
	for _, kind := range behind {
		for header, client := range map[string]string{
			headerOf(1, "192.0.2.7"): "192.0.2.7:51442",
			headerOf(2, "192.0.2.8"): "192.0.2.8:51442",
			headerUnknown:            "",
			headerLocal:              "",
		} {
			c := r.visitBehind(t, kind, header)
			peer := c.LocalAddr().String()
			if client == "" {
				client, peer = peer, ""
			}
			c.Close()
			pairs := []string{"msg", "connection", "listener", kind + ".a", "client", client}
			if peer != "" {
				pairs = append(pairs, "peer", peer)
			}
			line := r.log.Await(t, 1, pairs...)[0]
			if _, told := line["peer"]; told != (peer != "") {
				t.Errorf("%s: the line of %q is %v", kind, header, line)
			}
		}
		at, _ := r.at(t, kind+".a")
		c := dialFrom(t, "127.0.0.3", at[0])
		asks, hears := asksFor(t, kind, r.echo)
		if _, err := io.WriteString(c, asks+"hello"); err != nil {
			t.Fatal(err)
		}
		heard := make([]byte, len(hears)+len("hello"))
		if _, err := io.ReadFull(c, heard); err != nil || string(heard) != hears+"hello" {
			t.Errorf("%s without a header: heard %q, %v", kind, heard, err)
		}
		wantNothingFrom(t, r, kind, headerOf(1, "203.0.113.1"), "denied")
	}
}

// wantNothingFrom expects that a client of the balancer's gets no tunnel, for a reason.
func wantNothingFrom(t *testing.T, r *rig, kind, header, reason string) {
	t.Helper()
	at, _ := r.at(t, kind+".a")
	c := dialFrom(t, balancer, at[0])
	asks, _ := asksFor(t, kind, r.echo)
	if _, err := io.WriteString(c, header+asks); err != nil {
		t.Fatal(err)
	}
	if heard, err := io.ReadAll(c); strings.Contains(string(heard), "200") || kind == "tcp" && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("%s: heard %q, %v", kind, heard, err)
	}
	r.log.Await(t, 1, "msg", "connection failed", "listener", kind+".a", "reason", reason)
}

// TestAnnouncedTargetSpeaksFirst: nobody waits for a byte behind the header, nor for one of a
// client that is to send no header.
func TestAnnouncedTargetSpeaksFirst(t *testing.T) {
	greets := nettest.Serve(t, func(c *net.TCPConn) { _, _ = io.WriteString(c, "220 ready\r\n") })
	r := start(t, nil, func(string) string { return behindBalancer(greets, "", "") })
	at, _ := r.at(t, "tcp.a")
	for source, says := range map[string]string{"127.0.0.3": "", balancer: headerOf(2, "192.0.2.7")} {
		c := dialFrom(t, source, at[0])
		if _, err := io.WriteString(c, says); err != nil {
			t.Fatal(err)
		}
		if heard, err := io.ReadAll(c); err != nil || string(heard) != "220 ready\r\n" {
			t.Errorf("from %s: heard %q, %v", source, heard, err)
		}
	}
}

// TestAnnouncedMayComeIn: allow and deny are asked of the address in the header, and of the
// balancer's for its own connections. Whoever is kept out holds no slot.
func TestAnnouncedMayComeIn(t *testing.T) {
	r := start(t, nil, func(echo string) string {
		return behindBalancer(echo, "", " allow = [\"192.0.2.0/24\", \"127.0.0.4\"]\n deny = [\"192.0.2.66\"]\n")
	})
	for _, kind := range behind {
		at, _ := r.at(t, kind+".a")
		r.visitBehind(t, kind, headerOf(1, "192.0.2.7")).Close()
		for _, tt := range []struct{ header, client, list string }{
			{headerOf(1, "203.0.113.1"), "203.0.113.1:51442", byAllow},
			{headerOf(2, "192.0.2.66"), "192.0.2.66:51442", byDeny},
			{headerUnknown, "", byAllow},
			{headerLocal, "", byAllow},
		} {
			wantResetFrom(t, balancer, at[0], tt.header)
			pairs := []string{"msg", "client may not come in", "listener", kind + ".a", "reason", tt.list}
			if tt.client != "" {
				pairs = append(pairs, "client", tt.client)
			}
			line := r.log.Await(t, 1, pairs...)[0]
			if peer, told := line["peer"].(string); tt.client != "" && (!told || !strings.HasPrefix(peer, balancer)) {
				t.Errorf("the line is %v", line)
			}
		}
		wantResetFrom(t, "127.0.0.3", at[0], "") // as soon as it is accepted
		for list, want := range map[string]string{byDeny: "1", byAllow: "4"} {
			if got := r.series(t, fmt.Sprintf("tunneld_connections_refused_total{limit=%q,listener=%q}", list, kind+".a")); got != want {
				t.Errorf("%s: %s clients are kept out by %s, want %s", kind, got, list, want)
			}
		}
		r.comesTo(t, kind, 0)
	}
}

// TestAnnouncedProbes: what connects and leaves is a probe, and so is a load balancer that
// sends a header and leaves, where clients speak first.
func TestAnnouncedProbes(t *testing.T) {
	r := start(t, nil, func(echo string) string { return behindBalancer(echo, "", "") })
	for _, kind := range behind {
		at, _ := r.at(t, kind+".a")
		says := []string{"", headerLocal, headerOf(2, "192.0.2.7")}
		if kind == "tcp" {
			says = says[:1]
		}
		for i, header := range says {
			c := dialFrom(t, balancer, at[0])
			if _, err := io.WriteString(c, header); err != nil {
				t.Fatal(err)
			}
			c.Close()
			r.seriesComesTo(t, fmt.Sprintf("tunneld_probes_total{listener=%q}", kind+".a"), fmt.Sprint(i+1))
		}
		r.comesTo(t, kind, 0)
	}
	if lines := r.log.Matching("msg", "client handshake failed"); len(lines) > 0 {
		t.Errorf("a handshake failed: %v", lines[0])
	}
}

// seriesComesTo waits until a series of the metrics has a value.
func (r *rig) seriesComesTo(t *testing.T, name, value string) {
	t.Helper()
	for deadline := time.Now().Add(patience); r.series(t, name) != value; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s is %s, want %s", name, r.series(t, name), value)
		}
	}
}

// TestAnnouncedIsSpliced: behind the header most bytes of a tunnel never come to this
// process: the counts say so, and without asking them, while the client reads slowly, bytes
// are seen to wait in a pipe.
func TestAnnouncedIsSpliced(t *testing.T) {
	sends := nettest.Serve(t, func(c *net.TCPConn) {
		for b := make([]byte, 256<<10); ; {
			if _, err := c.Write(b); err != nil {
				return // the client has left
			}
		}
	})
	r := start(t, nil, func(string) string { return behindBalancer(sends, "", "") })
	for _, kind := range behind {
		at, _ := r.at(t, kind+".a")
		asks, _ := asksFor(t, kind, sends)
		for _, header := range []string{headerOf(1, "192.0.2.7"), headerOf(2, "192.0.2.7"), headerLocal} {
			c := dialFrom(t, balancer, at[0])
			if _, err := io.WriteString(c, header+asks); err != nil {
				t.Fatal(err)
			}
			// What was written last may have been copied.
			for b := make([]byte, 256<<10); fdtest.BytesInPipes(t) == 0; {
				if _, err := io.ReadFull(c, b); err != nil {
					t.Fatalf("%s, %q: no bytes are in any pipe, %v", kind, header, err)
				}
			}
			c.Close()
			r.comesTo(t, kind, 0)
		}
		moved := map[string]float64{}
		for _, method := range []string{"splice", "copy"} {
			text := r.series(t, fmt.Sprintf("tunneld_tunnel_bytes_total{direction=\"down\",listener=%q,method=%q,path=\"direct\",route=\"all\",upstream=\"direct.x\"}", kind+".a", method))
			var err error
			if moved[method], err = strconv.ParseFloat(text, 64); err != nil {
				t.Fatal(err)
			}
		}
		if moved["splice"] < 10*moved["copy"] {
			t.Errorf("%s: %v bytes were spliced, and %v copied", kind, moved["splice"], moved["copy"])
		}
	}
}

// TestNotAnnouncedClients: a client that should send a header and does not is reset, and so
// is one that should not and does; the log says what to do.
func TestNotAnnouncedClients(t *testing.T) {
	r := start(t, nil, func(echo string) string {
		return behindBalancer(echo, "", " timeouts {\n  handshake = \"100ms\"\n }\n")
	})
	for _, kind := range behind {
		at, _ := r.at(t, kind+".a")
		for says, reason := range map[string]string{"": "timeout", "PROXY TCP4 ": "timeout", "PROXY nonsense\r\n": "proxy_protocol", "GET / HTTP/1.1\r\n\r\n": "proxy_protocol"} {
			before := len(r.log.Matching("msg", "client handshake failed", "listener", kind+".a"))
			wantResetFrom(t, balancer, at[0], says)
			lines := r.log.Await(t, before+1, "msg", "client handshake failed", "listener", kind+".a")
			line := lines[len(lines)-1]
			if line["reason"] != reason || !strings.HasPrefix(fmt.Sprint(line["client"]), balancer+":") || !strings.Contains(fmt.Sprint(line["hint"]), "accept_from") {
				t.Errorf("%s: the line of %q is %v", kind, says, line)
			}
		}
		for reason, want := range map[string]string{"timeout": "2", "proxy_protocol": "2"} {
			if got := r.series(t, fmt.Sprintf("tunneld_handshake_failures_total{listener=%q,reason=%q}", kind+".a", reason)); got != want {
				t.Errorf("%s: %s failures by %s, want %s", kind, got, reason, want)
			}
		}
		r.comesTo(t, kind, 0)
		if kind == "tcp" {
			continue // its target gets whatever comes
		}
		wantResetFrom(t, "127.0.0.3", at[0], headerOf(1, "192.0.2.7"))
		line := r.log.Await(t, 3, "msg", "client handshake failed", "listener", kind+".a", "reason", "proxy_protocol")[2]
		if !strings.HasPrefix(fmt.Sprint(line["client"]), "127.0.0.3:") || !strings.Contains(fmt.Sprint(line["hint"]), "put its address into accept_from") {
			t.Errorf("%s: the line of an unwanted header is %v", kind, line)
		}
	}
}

// TestHeaderBehindFirstByte: a tcp listener that waits for the first byte refuses a header
// from whoever is not in accept_from, if it has one; otherwise it is the target's.
func TestHeaderBehindFirstByte(t *testing.T) {
	config := func(echo, lines string) string {
		return fmt.Sprintf("upstream \"direct\" \"x\" {}\nroute \"all\" {\n upstreams = [upstream.direct.x]\n}\nlistener \"tcp\" \"a\" {\n address = \"127.0.0.1:0\"\n target = %q\n dial_on = \"first_byte\"\n%s}\n", echo, lines)
	}
	r := start(t, nil, func(echo string) string { return config(echo, accepting) })
	at, _ := r.at(t, "tcp.a")
	wantResetFrom(t, "127.0.0.3", at[0], headerOf(1, "192.0.2.7"))
	r.log.Await(t, 1, "msg", "client handshake failed", "reason", "proxy_protocol")
	r.visitBehind(t, "tcp", headerOf(1, "192.0.2.7"))
	r.reload(t, config(r.echo, ""))
	c := dialFrom(t, "127.0.0.3", at[0])
	header := headerOf(1, "192.0.2.7")
	if _, err := io.WriteString(c, header); err != nil {
		t.Fatal(err)
	}
	heard := make([]byte, len(header))
	if _, err := io.ReadFull(c, heard); err != nil || string(heard) != header {
		t.Errorf("heard %q, %v", heard, err)
	}
}

// TestAnnouncedOverTLS: the header comes in the clear, and TLS behind it.
func TestAnnouncedOverTLS(t *testing.T) {
	d := newTLSDoor(t)
	r := start(t, nil, func(echo string) string { return d.config(echo, d.mutual("spiffe://corp/*"), accepting) })
	at, _ := r.at(t, "tcp.t")
	for _, header := range []string{headerOf(1, "192.0.2.7"), headerOf(2, "192.0.2.7")} {
		raw := dialFrom(t, balancer, at[0])
		if _, err := io.WriteString(raw, header); err != nil {
			t.Fatal(err)
		}
		c := tls.Client(raw, d.client("spiffe://corp/alice"))
		echoed(t, c)
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	r.log.Await(t, 2, "msg", "connection", "client", "192.0.2.7:51442", "user", "spiffe://corp/alice")
}

// TestAnnouncedLogins: who guesses makes nobody wait who comes from elsewhere by way of the
// same balancer.
func TestAnnouncedLogins(t *testing.T) {
	r := start(t, nil, func(string) string {
		return asking("users = { alice = \"a\", bob = \"b\" }", accepting)
	})
	at, _ := r.at(t, "socks5.a")
	login := func(client, password string) net.Conn {
		t.Helper()
		c := dialFrom(t, balancer, at[0])
		if _, err := fmt.Fprintf(c, "%s\x05\x01\x02\x01\x05alice\x01%s", headerOf(2, client), password); err != nil {
			t.Fatal(err)
		}
		return c
	}
	var guesses []net.Conn
	for range 8 {
		guesses = append(guesses, login("192.0.2.66", "x"))
	}
	heard := make([]byte, 4)
	if _, err := io.ReadFull(login("192.0.2.7", "a"), heard); err != nil || string(heard) != "\x05\x02\x01\x00" {
		t.Fatalf("heard % x, %v", heard, err)
	}
	for _, c := range guesses {
		if err := c.SetReadDeadline(time.Now().Add(time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, heard); err != nil {
			return // it has to wait
		}
	}
	t.Error("all guesses were answered before")
}

// TestStopEndsAnnouncements: a stop does not wait for a header.
func TestStopEndsAnnouncements(t *testing.T) {
	r := start(t, nil, func(echo string) string {
		return behindBalancer(echo, "", " timeouts {\n  handshake = \"0s\"\n }\n")
	})
	at, _ := r.at(t, "tcp.a")
	c := dialFrom(t, balancer, at[0])
	r.comesTo(t, "tcp", 1)
	now, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.Stop(now); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("%v, want a reset", err)
	}
	r.log.Await(t, 1, "msg", "client handshake failed", "reason", "stopping")
}
