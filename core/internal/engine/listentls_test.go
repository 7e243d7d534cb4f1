package engine

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tunneld/tunneld/core/internal/config"
	"github.com/tunneld/tunneld/core/status"
	"github.com/tunneld/tunneld/internal/nettest"
	"github.com/tunneld/tunneld/internal/socks5"
)

// tlsDoor is a listener that speaks TLS, its files and its clients.
type tlsDoor struct {
	t               *testing.T
	authority       *nettest.Authority
	cert, key, auth string // its files
}

func newTLSDoor(t *testing.T) *tlsDoor {
	t.Helper()
	d := &tlsDoor{t: t, authority: nettest.NewAuthority(t, "authority")}
	d.cert, d.key = d.authority.Files(t, &x509.Certificate{DNSNames: []string{"door.example"}})
	d.auth = d.authority.File(t)
	return d
}

// config has one listener of each kind, all with these lines in their tls blocks and after
// them.
func (d *tlsDoor) config(echo, lines, after string) string {
	block := fmt.Sprintf(" address = \"127.0.0.1:0\"\n tls {\n  cert_file = %q\n  key_file = %q\n%s }\n%s", d.cert, d.key, lines, after)
	return fmt.Sprintf("metrics { address = \"127.0.0.1:0\" }\nupstream \"direct\" \"x\" {}\nroute \"all\" {\n upstreams = [upstream.direct.x]\n}\n"+
		"listener \"tcp\" \"t\" {\n target = %q\n%s}\nlistener \"socks5\" \"s\" {\n%s%s}\nlistener \"http\" \"h\" {\n%s%s}\n",
		echo, block, nettest.OpenTargets, block, nettest.OpenTargets, block)
}

// mutual are the lines that want client certificates.
func (d *tlsDoor) mutual(allow ...string) string {
	return fmt.Sprintf("  client_ca_file = %q\n  allow_san = [\"%s\"]\n", d.auth, strings.Join(allow, `", "`))
}

// client is a client that resumes sessions, with a certificate for a URI unless that is "".
func (d *tlsDoor) client(uri string) *tls.Config {
	d.t.Helper()
	roots := x509.NewCertPool()
	roots.AddCert(d.authority.Certificate)
	c := &tls.Config{ServerName: "door.example", RootCAs: roots, ClientSessionCache: tls.NewLRUClientSessionCache(0)}
	if uri == "" {
		return c
	}
	u, err := url.Parse(uri)
	if err != nil {
		d.t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(d.authority.Issue(d.t, &x509.Certificate{URIs: []*url.URL{u}}))
	if err != nil {
		d.t.Fatal(err)
	}
	c.Certificates = []tls.Certificate{pair}
	return c
}

// visits has something echoed through the tcp listener, or returns why not.
func (d *tlsDoor) visits(at string, c *tls.Config) (resumed bool, err error) {
	d.t.Helper()
	raw, err := net.DialTimeout("tcp", at, patience)
	if err != nil {
		d.t.Fatal(err)
	}
	defer raw.Close()
	if err := raw.SetDeadline(time.Now().Add(patience)); err != nil {
		d.t.Fatal(err)
	}
	conn := tls.Client(raw, c)
	b := make([]byte, 5)
	if _, err = io.WriteString(conn, "hello"); err == nil {
		_, err = io.ReadFull(conn, b)
	}
	if err == nil {
		err = conn.Close()
	}
	return conn.ConnectionState().DidResume, err
}

func (d *tlsDoor) mustVisit(at string, c *tls.Config, resumed bool) {
	d.t.Helper()
	if was, err := d.visits(at, c); err != nil || was != resumed {
		d.t.Errorf("resumed %v, want %v; %v", was, resumed, err)
	}
}

// TestListenersSpeakTLS: all kinds do, know their clients by their certificates, and tell
// of their own.
func TestListenersSpeakTLS(t *testing.T) {
	d := newTLSDoor(t)
	r := start(t, nil, func(echo string) string { return d.config(echo, d.mutual("spiffe://corp/*"), "") })
	at, _ := r.at(t, "tcp.t")
	alice := d.client("spiffe://corp/alice")
	d.mustVisit(at[0], alice, false)
	d.mustVisit(at[0], alice, true)
	lines := r.log.Await(t, 2, "msg", "connection", "listener", "tcp.t", "user", "spiffe://corp/alice")
	if lines[1]["reason"] != "client_eof" {
		t.Errorf("%v", lines[1])
	}

	socks, _ := r.at(t, "socks5.s")
	raw := dialFrom(t, "127.0.0.1", socks[0])
	c := tls.Client(raw, alice)
	sayToSOCKS(t, c, r.echo, "hello")
	_ = c.Close()
	r.log.Await(t, 1, "msg", "connection", "listener", "socks5.s", "user", "spiffe://corp/alice")

	web, _ := r.at(t, "http.h")
	c = tls.Client(dialFrom(t, "127.0.0.1", web[0]), alice)
	want := "HTTP/1.1 200 Connection established\r\n\r\nhello"
	got := make([]byte, len(want))
	if _, err := fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\n\r\nhello", r.echo); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, got); err != nil || string(got) != want {
		t.Errorf("http: %q, %v", got, err)
	}
	_ = c.Close()
	// A refusal comes within TLS, and ends by close_notify.
	c = tls.Client(dialFrom(t, "127.0.0.1", web[0]), alice)
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(c); err != nil || !strings.HasPrefix(string(got), "HTTP/1.1 400 ") {
		t.Errorf("http: %q, %v", got, err)
	}
	_ = c.Close()

	if _, err := d.visits(at[0], d.client("spiffe://elsewhere/alice")); err == nil || !strings.Contains(err.Error(), "bad certificate") {
		t.Errorf("a client that is not allowed: %v", err)
	}
	line := r.log.Await(t, 1, "msg", "client handshake failed", "listener", "tcp.t", "reason", "tls")[0]
	if err, _ := line["err"].(string); !strings.Contains(err, "spiffe://elsewhere/alice") || !strings.Contains(fmt.Sprint(line["hint"]), "allow_san") {
		t.Errorf("%v", line)
	}

	s := r.Status()
	for _, l := range s.Listeners {
		if len(l.Certificates) != 1 || l.Certificates[0].File != d.cert || time.Until(l.Certificates[0].NotAfter) > time.Hour || l.FileProblem != "" {
			t.Errorf("status %+v", l)
		}
	}
	_, page := get(t, r.metricsSockets()[0].bound(), "/metrics")
	for _, want := range []string{`tunneld_handshake_failures_total{listener="tcp.t",reason="tls"} 1`, `tunneld_listener_certificate_expires_timestamp_seconds{listener="tcp.t"}`, `tunneld_listener_file_problem{listener="tcp.t"} 0`} {
		if !strings.Contains(page, want) {
			t.Errorf("no %s", want)
		}
	}
}

// sayToSOCKS asks a socks5 listener for target, and has words echoed by it.
func sayToSOCKS(t *testing.T, c net.Conn, target, words string) {
	t.Helper()
	at := netip.MustParseAddrPort(target)
	b, err := socks5.AppendGreeting(nil, socks5.MethodNone)
	if err == nil {
		b, err = socks5.AppendRequest(b, socks5.Request{Command: socks5.Connect, Address: socks5.Address{Host: at.Addr().String(), Port: at.Port()}})
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write(append(b, words...)); err != nil {
		t.Fatal(err)
	}
	heard := make([]byte, 2+10+len(words))
	if n, err := io.ReadFull(c, heard); err != nil || heard[3] != byte(socks5.Succeeded) || string(heard[12:]) != words {
		t.Fatalf("heard % x, %v", heard[:n], err)
	}
}

// TestListenersTLSFiles: certificates and authorities are those of the files as they are
// now, or as they last were of use; what has changed ends old sessions.
func TestListenersTLSFiles(t *testing.T) {
	t.Parallel()
	d := newTLSDoor(t)
	r := start(t, nil, func(echo string) string { return d.config(echo, d.mutual("spiffe://corp/*"), "") })
	at, _ := r.at(t, "tcp.t")
	alice := d.client("spiffe://corp/alice")
	d.mustVisit(at[0], alice, false)
	changed := func(n int) {
		t.Helper()
		r.log.Await(t, n, "level", "INFO", "listener", "tcp.t", "msg", "the files of a tls block have changed, and are in use")
	}
	problem := func(s status.Status) string { return s.Listeners[0].FileProblem }

	// A reload that concerns other things leaves the sessions alone.
	r.reload(t, d.config(r.echo, d.mutual("spiffe://corp/*"), " timeouts {\n  handshake = \"9s\"\n }\n"))
	d.mustVisit(at[0], alice, true)

	was, err := os.ReadFile(d.cert)
	if err != nil {
		t.Fatal(err)
	}
	put(t, d.cert, "half a certificate")
	s := r.await(t, "a broken file is not told of", func(s status.Status) bool { return problem(s) != "" })
	if !strings.Contains(problem(s), "tls: cert_file") || !strings.Contains(problem(s), d.cert) || len(s.Listeners[0].Certificates) != 1 {
		t.Errorf("status %+v", s.Listeners[0])
	}
	r.log.Await(t, 1, "level", "WARN", "listener", "tcp.t", "msg", "a file of a tls block has changed and cannot be used: the old content stays in use")
	d.mustVisit(at[0], alice, true)
	put(t, d.cert, string(was))
	r.await(t, "a file that is mended is told of", func(s status.Status) bool { return problem(s) == "" })
	d.mustVisit(at[0], alice, false) // it may be another one

	cert, key := d.authority.Files(t, &x509.Certificate{DNSNames: []string{"door.example"}, NotAfter: time.Now().Add(30 * time.Minute)})
	nettest.ReplaceFile(t, d.key, key)
	nettest.ReplaceFile(t, d.cert, cert)
	r.await(t, "a new certificate is not used", func(s status.Status) bool {
		c := s.Listeners[0].Certificates
		return len(c) == 1 && time.Until(c[0].NotAfter) < 31*time.Minute
	})
	d.mustVisit(at[0], alice, false)
	d.mustVisit(at[0], alice, true)

	// Her authority stays among those that are trusted, and the ticket is of no use.
	told := len(r.log.Matching("listener", "tcp.t", "msg", "the files of a tls block have changed, and are in use"))
	other := nettest.NewAuthority(t, "other")
	put(t, d.auth, string(other.PEM())+string(d.authority.PEM()))
	changed(told + 1)
	d.mustVisit(at[0], alice, false)
	d.mustVisit(at[0], alice, true)
	// Another allow_san comes with a reload.
	r.reload(t, d.config(r.echo, d.mutual("spiffe://corp/a*"), ""))
	d.mustVisit(at[0], alice, false)
	d.mustVisit(at[0], alice, true)
	r.reload(t, d.config(r.echo, d.mutual("spiffe://corp/b*"), ""))
	if resumed, err := d.visits(at[0], alice); err == nil {
		t.Errorf("a client that is not allowed any more is served, resumed %v", resumed)
	}
	r.reload(t, d.config(r.echo, d.mutual("spiffe://corp/*"), ""))
	alice = d.client("spiffe://corp/alice")
	d.mustVisit(at[0], alice, false)
	put(t, d.auth, string(other.PEM()))
	r.await(t, "another authority is not used", func(status.Status) bool { _, err := d.visits(at[0], alice); return err != nil })
	// Without the block it is an ordinary listener again, on the same socket.
	plain := strings.NewReplacer(" tls {", " # tls {", "  cert_file", "#", "  key_file", "#", "  client_ca_file", "#", "  allow_san", "#").Replace(d.config(r.echo, d.mutual("x"), ""))
	r.reload(t, strings.ReplaceAll(plain, "\n }\n", "\n"))
	visit(t, at[0])
	if len(r.tls.byKey) != 0 {
		t.Errorf("%d are kept", len(r.tls.byKey))
	}
}

// TestTLSBeyondALimit: the client is reset, without a word that would take a handshake.
// Until its handshake is over a client of any kind gives way to newer ones.
func TestTLSBeyondALimit(t *testing.T) {
	d := newTLSDoor(t)
	r := start(t, nil, func(echo string) string {
		return d.config(echo, "", " limits {\n  max_per_source = 1\n  max_connections = 2\n }\n")
	})
	for _, id := range []string{"tcp.t", "socks5.s", "http.h"} {
		at, _ := r.at(t, id)
		first := dialFrom(t, "127.0.0.1", at[0])
		wantReset(t, at[0])
		second := dialFrom(t, "127.0.0.2", at[0])
		c := dialFrom(t, "127.0.0.3", at[0])
		if err := tls.Client(c, d.client("")).Handshake(); err != nil {
			t.Errorf("%s: a newer client: %v", id, err)
		}
		if _, err := first.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s: the oldest reads %v, want a reset", id, err)
		}
		for _, c := range []net.Conn{first, second, c} {
			_ = c.Close()
		}
	}
	_, page := get(t, r.metricsSockets()[0].bound(), "/metrics")
	for _, want := range []string{`tunneld_connections_refused_total{limit="limits.max_per_source",listener="tcp.t"} 1`, `tunneld_handshakes_yielded_total{listener="tcp.t"} 1`} {
		if !strings.Contains(page, want) {
			t.Errorf("no %s", want)
		}
	}
}

// TestTLSMemoryIsShared: where all of it is held, the oldest of the source that holds most
// gives way, of the listener whose clients hold most.
func TestTLSMemoryIsShared(t *testing.T) {
	s := newSlots()
	listeners := s.split(ceiling{connections: 1000}, []string{"a", "b"})
	number := uint64(0)
	begin := func(listener, source string) *handshake {
		t.Helper()
		number++
		h := &handshake{slots: listeners[listener], source: netip.MustParseAddr(source), number: number}
		if yielded, over := s.take(h.slots, config.Limits{}, h.source, h); over != nil || len(yielded) > 0 {
			t.Fatal(yielded, over)
		}
		return h
	}
	hold := func(h *handshake, bytes int, want ...*handshake) {
		t.Helper()
		yielded, ok := s.hold(h, bytes)
		wanted := true
		for _, w := range want {
			wanted = wanted && w != h
		}
		if len(yielded) != len(want) || ok != wanted {
			t.Fatalf("%d give way, %v", len(yielded), ok)
		}
		for i := range want {
			if yielded[i] != want[i] || !want[i].yielded {
				t.Errorf("%+v gives way, want %+v", yielded[i], want[i])
			}
		}
	}
	const part = maxTLSMemory / 8
	small, one, greedy := begin("a", "192.0.2.9"), begin("a", "192.0.2.1"), begin("a", "192.0.2.2")
	greedier := begin("a", "192.0.2.2")
	other := begin("b", "192.0.2.1")
	hold(one, 2*part)
	hold(greedy, part)
	hold(greedier, 2*part)
	hold(other, 3*part)        // all is held
	hold(other, 1, greedy)     // of the source that holds most
	hold(small, part, one)     // two sources hold as much: the older one
	hold(other, 5*part, other) // nobody holds more than itself
	if s.memory != 3*part || small.yielded || greedier.yielded {
		t.Errorf("%d bytes are held, %v, %v", s.memory, small.yielded, greedier.yielded)
	}
	if yielded, ok := s.hold(other, 1); ok || len(yielded) > 0 {
		t.Error("who has given way gets more")
	}
	if !s.learned(small) || !s.learned(greedier) || s.memory != 0 {
		t.Errorf("%d bytes are held by nobody", s.memory)
	}
	s.give(small.slots, small.source, nil)
	s.give(greedier.slots, greedier.source, nil)
	if s.connections.taken != 0 || s.handshakes.taken != 0 || len(listeners["a"].holding.origins)+len(listeners["b"].holding.origins) != 0 {
		t.Errorf("left: %+v, %+v", s.connections, s.handshakes)
	}
}
