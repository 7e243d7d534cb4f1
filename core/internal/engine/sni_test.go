package engine

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tunneld/tunneld/core/status"
	"github.com/tunneld/tunneld/internal/nettest"
)

// TestSNIListener: clients reach the server whose name they ask for, by the route for it, and
// speak TLS with that server alone; who does not reach one reads in an alert why.
func TestSNIListener(t *testing.T) {
	a := nettest.NewAuthority(t, "authority")
	pair, err := tls.X509KeyPair(a.Issue(t, &x509.Certificate{DNSNames: []string{"a.test", "b.test"}}))
	if err != nil {
		t.Fatal(err)
	}
	asked := make(chan string, 1)
	target := nettest.Serve(t, func(c *net.TCPConn) {
		secured := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{pair}})
		if secured.Handshake() == nil { // else its peer says why
			asked <- secured.ConnectionState().ServerName
			_, _ = io.Copy(secured, secured)
			_ = secured.CloseWrite()
		}
	})
	_, port, err := net.SplitHostPort(target)
	if err != nil {
		t.Fatal(err)
	}
	names := nettest.ServeNames(t, nettest.Zone{"a.test.": "127.0.0.1", "b.test.": "127.0.0.1", "inside.test.": "127.0.3.1", "dead.test.": "127.0.4.1"}, nil)
	r := startWith(t, nil, func(string) string {
		listener := func(name, lines string) string {
			return fmt.Sprintf("listener \"sni\" %q {\n address = \"127.0.0.1:0\"\n port = %s\n%s}\n", name, port, lines)
		}
		return "upstream \"direct\" \"x\" {}\nroute \"a\" {\n match {\n hosts = [\"a.test\", \"*.test\"]\n }\n upstreams = [upstream.direct.x]\n}\n" +
			listener("open", " allow_targets = [\"127.0.0.1\", \"127.0.4.1\"]\n") + listener("usual", "") + listener("full", " limits {\n max_per_source = 1\n }\n")
	}, func(o *Options) { o.resolver = nettest.ResolverAt(names) })

	roots := x509.NewCertPool()
	roots.AddCert(a.Certificate)
	begin := func(listener, name string) (*tls.Conn, error) {
		t.Helper()
		at, _ := r.at(t, "sni."+listener)
		c := tls.Client(dialFrom(t, "127.0.0.1", at[0]), &tls.Config{ServerName: name, RootCAs: roots})
		if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		return c, c.Handshake()
	}
	for _, name := range []string{"a.test", "b.test"} {
		c, err := begin("open", name)
		if err != nil {
			t.Fatal(err)
		}
		if got := <-asked; got != name {
			t.Errorf("the target is asked for %q, want %q", got, name)
		}
		echoed(t, c)
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if rest, err := io.ReadAll(c); err != nil || len(rest) > 0 {
			t.Errorf("%q, %v", rest, err)
		}
		_ = c.Close()
		r.log.Await(t, 1, "msg", "connection", "listener", "sni.open", "route", "a", "target", name+":"+port)
	}
	for name, tt := range map[string]struct{ listener, alert, reason, hint string }{
		"gone.test":    {"open", "unrecognized name", "not_found", "check the name"},
		"dead.test":    {"open", "internal error", "refused", "check host and port"},
		"inside.test":  {"open", "access denied", "denied", "allow_targets"},
		"a.test":       {"usual", "access denied", "denied", `allow_targets = ["127.0.0.1/32"] in listener.sni.usual`},
		"other.domain": {"open", "access denied", "denied", "add a route"},
	} {
		if _, err := begin(tt.listener, name); err == nil || !strings.Contains(err.Error(), tt.alert) {
			t.Errorf("%s: the client is told %v, want %s", name, err, tt.alert)
		}
		line := r.log.Await(t, 1, "msg", "connection failed", "listener", "sni."+tt.listener, "target", name+":"+port, "reason", tt.reason)[0]
		if hint := fmt.Sprint(line["hint"]); !strings.Contains(hint, tt.hint) {
			t.Errorf("%s: hint %q, want %q", name, hint, tt.hint)
		}
	}
	_, nameless := begin("open", "127.0.0.1")
	if nameless == nil || !strings.Contains(nameless.Error(), "missing extension") {
		t.Errorf("without a name the client is told %v", nameless)
	}
	r.log.Await(t, 1, "msg", "client handshake failed", "listener", "sni.open", "reason", "tls")

	// Beyond a limit a client is told so, and has not to be read for it.
	at, _ := r.at(t, "sni.full")
	first := dialFrom(t, "127.0.0.1", at[0])
	if _, err := begin("full", "a.test"); err == nil || !strings.Contains(err.Error(), "internal error") {
		t.Errorf("beyond a limit the client is told %v", err)
	}
	_ = first.Close()
}

// TestSNIMemoryIsShared: what clients have sent of their ClientHello counts among the memory
// of all handshakes, and is given back.
func TestSNIMemoryIsShared(t *testing.T) {
	r := start(t, nil, func(string) string {
		return "upstream \"direct\" \"x\" {}\nroute \"all\" {\n upstreams = [upstream.direct.x]\n}\nlistener \"sni\" \"l\" {\n address = \"127.0.0.1:0\"\n}\n"
	})
	at, _ := r.at(t, "sni.l")
	held := func() int {
		r.slots.mu.Lock()
		defer r.slots.mu.Unlock()
		return r.slots.memory
	}
	c := dialFrom(t, "127.0.0.1", at[0])
	// A record of 16 KiB and a message as large begin, of which 5000 bytes come.
	if _, err := io.WriteString(c, "\x16\x03\x01\x3f\x00\x01\x00\x3e\xfc"+strings.Repeat("x", 5000)); err != nil {
		t.Fatal(err)
	}
	r.await(t, "the memory is not held", func(status.Status) bool { return held() >= 4<<10 })
	if n := held(); n > 9<<10 {
		t.Errorf("%d bytes are held of 5000", n)
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read %v, want a reset", err)
	}
	r.log.Await(t, 1, "msg", "client handshake failed", "listener", "sni.l", "reason", "tls")
	if n := held(); n != 0 {
		t.Errorf("%d bytes are held of nobody", n)
	}
}
