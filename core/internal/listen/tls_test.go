package listen

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/bare"
	"github.com/tunneld/tunneld/internal/nettest"
	"github.com/tunneld/tunneld/internal/tlsconf"
)

// tlsRig is a listener's TLS, and its clients.
type tlsRig struct {
	t         *testing.T
	authority *nettest.Authority
	options   tlsconf.ServerOptions
	held      atomic.Int64
	most      int64 // that may be held; 0: any
}

func newTLSRig(t *testing.T) *tlsRig {
	t.Helper()
	r := &tlsRig{t: t, authority: nettest.NewAuthority(t, "authority")}
	cert, key := r.authority.Files(t, &x509.Certificate{DNSNames: []string{"proxy.example"}})
	r.options.Pairs = []tlsconf.Pair{{CertFile: cert, KeyFile: key}}
	return r
}

var errNoMemory = errors.New("no memory")

func (r *tlsRig) tls() *TLSOptions {
	return &TLSOptions{Server: tlsconf.NewServer(r.options), Ends: tlsconf.Ends{Strict: true}}
}

// hold is HandshakeOptions.Hold.
func (r *tlsRig) hold(n int) error {
	if held := r.held.Add(int64(n)); r.most > 0 && held > r.most {
		return errNoMemory
	}
	return nil
}

// begin connects a client to a listener of a kind that speaks TLS.
func (r *tlsRig) begin(kind string, timeout time.Duration) (*net.TCPConn, <-chan outcome) {
	r.t.Helper()
	return beginWith(r.t, speaking(r.t, kind), HandshakeOptions{Timeout: timeout, TLS: r.tls(), Hold: r.hold})
}

// client is the configuration of a client with a certificate for these names, or without.
func (r *tlsRig) client(names ...string) *tls.Config {
	r.t.Helper()
	roots := x509.NewCertPool()
	roots.AddCert(r.authority.Certificate)
	c := &tls.Config{ServerName: "proxy.example", RootCAs: roots}
	if names != nil {
		c.Certificates = []tls.Certificate{r.certificate(r.authority, &x509.Certificate{}, names...)}
	}
	return c
}

func (r *tlsRig) certificate(by *nettest.Authority, c *x509.Certificate, names ...string) tls.Certificate {
	r.t.Helper()
	for _, name := range names {
		if u, err := url.Parse(name); err == nil && u.Scheme != "" {
			c.URIs = append(c.URIs, u)
		} else {
			c.DNSNames = append(c.DNSNames, name)
		}
	}
	pair, err := tls.X509KeyPair(by.Issue(r.t, c))
	if err != nil {
		r.t.Fatal(err)
	}
	return pair
}

// TestTLSHandshake: each kind speaks within TLS as it does without, and the client's
// certificate says who it is.
func TestTLSHandshake(t *testing.T) {
	r := newTLSRig(t)
	r.options.ClientCAFile, r.options.AllowSAN = r.authority.File(t), []string{"spiffe://corp/*"}
	for kind, tt := range map[string]struct{ send, answer string }{
		KindTCP:    {"hello", ""},
		KindSOCKS5: {"\x05\x01\x00\x05\x01\x00\x03\x02db\x00\x01hello", greeted + string(socksReplies.ready)},
		KindHTTP:   {"CONNECT db:1 HTTP/1.1\r\n\r\nhello", string(httpReplies.ready)},
	} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			t.Run(kind+", "+tls.VersionName(version), func(t *testing.T) {
				raw, done := r.begin(kind, patience)
				config := r.client("web.corp", "spiffe://corp/web")
				config.MaxVersion = version
				c := tls.Client(raw, config)
				if _, err := io.WriteString(c, tt.send); err != nil {
					t.Fatal(err)
				}
				o := await(t, done)
				if o.err != nil {
					t.Fatal(o.err)
				}
				if o.client.User != "spiffe://corp/web" || o.client.Target.String() != "db:1" {
					t.Errorf("user %q, target %q", o.client.User, o.client.Target)
				}
				end, err := o.client.Ready(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if end.Socket != nil {
					t.Fatal("the tunnel has a bare socket")
				}
				got := make([]byte, len("hello"))
				if _, err := io.ReadFull(io.MultiReader(bytes.NewReader(end.ReadAhead), end.Stream), got); err != nil || string(got) != "hello" {
					t.Errorf("the tunnel begins with %q, %v", got, err)
				}
				if _, err := io.WriteString(end.Stream, "back"); err != nil {
					t.Fatal(err)
				}
				got = make([]byte, len(tt.answer)+len("back"))
				if _, err := io.ReadFull(c, got); err != nil || string(got) != tt.answer+"back" {
					t.Errorf("the client reads %q, %v", got, err)
				}
				_ = end.Stream.Close()
			})
		}
	}
}

// TestTLSWaitsForTheFirstByte of what the client has to say, not of its handshake.
func TestTLSWaitsForTheFirstByte(t *testing.T) {
	r := newTLSRig(t)
	kind, _ := FindKind(KindTCP)
	p := kind.New(Settings{Values: map[string]any{"dial_on": onFirstByte}})
	begin := func() (*tls.Conn, <-chan outcome) {
		raw, done := beginWith(t, p, HandshakeOptions{Timeout: patience, TLS: r.tls()})
		c := tls.Client(raw, r.client())
		if err := c.Handshake(); err != nil {
			t.Fatal(err)
		}
		return c, done
	}
	c, done := begin()
	select {
	case o := <-done:
		t.Fatalf("the handshake is over before the first byte: %v", o.err)
	case <-time.After(brief):
	}
	if _, err := io.WriteString(c, "first words"); err != nil {
		t.Fatal(err)
	}
	if o := await(t, done); o.err != nil || string(o.client.Ahead) != "first words" {
		t.Errorf("%v, ahead %q", o.err, o.client.Ahead)
	}
	for name, leave := range map[string]func(*tls.Conn) error{
		"close_notify": (*tls.Conn).Close,
		"FIN":          func(c *tls.Conn) error { return c.NetConn().Close() },
		"reset":        func(c *tls.Conn) error { bare.Reset(c); return nil },
	} {
		c, done := begin()
		if err := leave(c); err != nil {
			t.Fatal(err)
		}
		if o := await(t, done); !errors.Is(o.err, ErrNothing) {
			t.Errorf("%s: %v", name, o.err)
		}
	}
}

// TestTLSIsInTime: all of TLS and of the protocol behind it is within one time.
func TestTLSIsInTime(t *testing.T) {
	r := newTLSRig(t)
	hello := nettest.ClientHello(t, r.client())
	for name, first := range map[string]string{"nothing": "", "half a hello": hello[:50], "a hello": hello} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, done := r.begin(KindSOCKS5, brief)
			send(t, c, first, inOnePiece)
			if _, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("read %v, want a reset", err)
			}
			if o := await(t, done); Reason(o.err) != "timeout" || !strings.Contains(Hint(o.err), "timeouts.handshake") {
				t.Errorf("error %v, reason %s, hint %q", o.err, Reason(o.err), Hint(o.err))
			}
		})
	}
}

// timed notes the deadlines of a connection.
type timed struct {
	*net.TCPConn
	deadlines []time.Time
}

func (c *timed) SetDeadline(t time.Time) error {
	c.deadlines = append(c.deadlines, t)
	return c.TCPConn.SetDeadline(t)
}

func (c *timed) NetConn() net.Conn { return c.TCPConn }

// TestTLSHasOneTime, from its first byte to the last of the protocol behind it, and none
// once the client was heard.
func TestTLSHasOneTime(t *testing.T) {
	r := newTLSRig(t)
	for kind, words := range map[string]string{KindTCP: "", KindSOCKS5: "\x05\x01\x00" + socksToDB} {
		near, far := nettest.Pair(t)
		c := &timed{TCPConn: far}
		done := make(chan outcome, 1)
		go func() {
			client, err := Handshake(t.Context(), speaking(t, kind), NewStreamConn(c), HandshakeOptions{Timeout: patience, TLS: r.tls()})
			done <- outcome{client, err}
		}()
		if _, err := io.WriteString(tls.Client(near, r.client()), words); err != nil {
			t.Fatal(err)
		}
		o := await(t, done)
		if o.err != nil {
			t.Fatal(o.err)
		}
		if n := len(c.deadlines); n < 2 || c.deadlines[0].IsZero() || !c.deadlines[n-1].IsZero() || slices.ContainsFunc(c.deadlines[1:], func(d time.Time) bool { return !d.IsZero() }) {
			t.Errorf("%s: deadlines %v", kind, c.deadlines)
		}
		o.client.Reset()
	}
}

// TestTLSIsBrokenOff by the context, at any time.
func TestTLSIsBrokenOff(t *testing.T) {
	r := newTLSRig(t)
	hello := nettest.ClientHello(t, r.client())
	for name, first := range map[string]string{"nothing": "", "half a hello": hello[:50], "a hello": hello} {
		ctx, cancel := context.WithCancel(t.Context())
		c, done := beginIn(ctx, t, speaking(t, KindTCP), HandshakeOptions{Timeout: patience, TLS: r.tls()})
		send(t, c, first, inOnePiece)
		if first == hello {
			if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
		}
		cancel()
		if _, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s: read %v, want a reset", name, err)
		}
		if o := await(t, done); o.err == nil {
			t.Errorf("%s: no error", name)
		}
		_ = c.Close()
	}
}

// TestPasswordsUserWins over the certificate's.
func TestPasswordsUserWins(t *testing.T) {
	r := newTLSRig(t)
	r.options.ClientCAFile = r.authority.File(t)
	raw, done := beginWith(t, speaking(t, KindSOCKS5), HandshakeOptions{Timeout: patience, TLS: r.tls(), Login: alice})
	c := tls.Client(raw, r.client("web.corp"))
	if _, err := io.WriteString(c, "\x05\x01\x02"+login+socksToDB); err != nil {
		t.Fatal(err)
	}
	if o := await(t, done); o.err != nil || o.client.User != "alice" {
		t.Errorf("%v", o.err)
	} else {
		o.client.Reset()
	}
}
