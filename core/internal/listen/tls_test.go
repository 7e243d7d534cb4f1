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
	"os"
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
	return &TLSOptions{Server: tlsconf.NewServer(r.options), Ends: tlsconf.Ends{Strict: true}, Hold: func(n int) error {
		if held := r.held.Add(int64(n)); r.most > 0 && held > r.most {
			return errNoMemory
		}
		return nil
	}}
}

// begin connects a client to a listener of a kind that speaks TLS.
func (r *tlsRig) begin(kind string, timeout time.Duration) (*net.TCPConn, <-chan outcome) {
	r.t.Helper()
	return beginWith(r.t, speaking(r.t, kind), HandshakeOptions{Timeout: timeout, TLS: r.tls()})
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

// TestTLSRefuses: whoever is not let in is told so by an alert, and the log by what to do.
func TestTLSRefuses(t *testing.T) {
	r := newTLSRig(t)
	other := nettest.NewAuthority(t, "other")
	r.options.ClientCAFile, r.options.AllowSAN, r.options.ALPN = r.authority.File(t), []string{"*.corp"}, []string{"one"}
	r.options.MinVersion = "1.2"
	with := func(change func(*tls.Config)) func() *tls.Config {
		return func() *tls.Config {
			c := r.client("web.corp")
			change(c)
			return c
		}
	}
	for name, tt := range map[string]struct {
		client func() *tls.Config
		alert  string // that the client gets
		err    string
		hint   string
	}{
		"no certificate": {func() *tls.Config { return r.client() }, "certificate required|handshake failure", "TLS for \"proxy.example\": client didn't provide a certificate", "client_ca_file"},
		"not allowed": {func() *tls.Config { return r.client("web.other", "spiffe://corp/web") }, "bad certificate",
			"no name of the client's certificate is in allow_san: it has spiffe://corp/web, web.other", "allow_san"},
		"another authority": {with(func(c *tls.Config) {
			c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				pair := r.certificate(other, &x509.Certificate{}, "web.corp")
				return &pair, nil
			}
		}), "unknown certificate authority", "unknown authority", "client_ca_file"},
		"expired": {with(func(c *tls.Config) {
			c.Certificates = []tls.Certificate{r.certificate(r.authority, &x509.Certificate{NotAfter: time.Now().Add(-time.Minute)}, "web.corp")}
		}), "expired certificate", "expired", "has expired"},
		"a server's": {with(func(c *tls.Config) {
			c.Certificates = []tls.Certificate{r.certificate(r.authority, &x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}, "web.corp")}
		}), "bad certificate", "incompatible key usage", "clientAuth"},
		"no protocol":           {with(func(c *tls.Config) { c.NextProtos = []string{"two", "three"} }), "no application protocol", "unsupported application protocols", `["two" "three"] by ALPN`},
		"it does not take ours": {with(func(c *tls.Config) { c.RootCAs = x509.NewCertPool() }), "", "remote error: tls: bad certificate", "the client does not take the listener's certificate"},
		"another name":          {with(func(c *tls.Config) { c.ServerName = "elsewhere.example" }), "", "TLS for \"elsewhere.example\"", "does not take the listener's certificate"},
	} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			t.Run(name+", "+tls.VersionName(version), func(t *testing.T) {
				t.Parallel()
				raw, done := r.begin(KindSOCKS5, patience)
				config := tt.client()
				config.MaxVersion = version
				c := tls.Client(raw, config)
				_, err := io.WriteString(c, "\x05\x01\x00")
				if err == nil {
					_, err = io.ReadAll(c)
				}
				_ = raw.Close()
				got := false
				for _, alert := range strings.Split(tt.alert, "|") {
					got = got || err != nil && strings.Contains(err.Error(), alert)
				}
				if !got {
					t.Errorf("the client is told %v, want %s", err, tt.alert)
				}
				o := await(t, done)
				if o.err == nil || !strings.Contains(o.err.Error(), tt.err) || Reason(o.err) != "tls" || !strings.Contains(Hint(o.err), tt.hint) {
					t.Errorf("error %v, reason %s, hint %q; want %s, %s", o.err, Reason(o.err), Hint(o.err), tt.err, tt.hint)
				}
			})
		}
	}
	// Versions, of which crypto/tls has no client of its own for the oldest.
	for name, tt := range map[string]struct{ least, most, ours, hint string }{
		"an old client": {"1.0", "1.1", "1.2", "at most TLS 1.1, and the listener at least TLS 1.2"},
		"a new client":  {"1.3", "1.3", "1.2 only", "at least TLS 1.3, and the listener at most TLS 1.2"},
		"an old server": {"1.2", "1.2", "1.3", "at most TLS 1.2, and the listener at least TLS 1.3"},
	} {
		t.Run(name, func(t *testing.T) {
			numbers := map[string]uint16{"1.0": tls.VersionTLS10, "1.1": tls.VersionTLS11, "1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13}
			r := newTLSRig(t)
			if r.options.MinVersion = tt.ours; tt.ours == "1.2 only" {
				r.options.MinVersion, r.options.MaxVersion = "1.2", "1.2"
			}
			raw, done := r.begin(KindTCP, patience)
			config := r.client()
			config.MinVersion, config.MaxVersion = numbers[tt.least], numbers[tt.most]
			if err := tls.Client(raw, config).Handshake(); err == nil || !strings.Contains(err.Error(), "protocol version") {
				t.Errorf("the client is told %v", err)
			}
			_ = raw.Close()
			if o := await(t, done); Reason(o.err) != "tls" || !strings.Contains(Hint(o.err), tt.hint) {
				t.Errorf("error %v, hint %q", o.err, Hint(o.err))
			}
		})
	}
}

// firstOf is a ClientHello of crypto/tls.
func (r *tlsRig) firstOf(config *tls.Config) string {
	r.t.Helper()
	near, far := nettest.Pair(r.t)
	go func() { _ = tls.Client(near, config).Handshake() }()
	b := make([]byte, 16<<10)
	n, err := far.Read(b)
	if err != nil {
		r.t.Fatal(err)
	}
	bare.Reset(far)
	return string(b[:n])
}

// TestTLSIsInTime: all of TLS and of the protocol behind it is within one time.
func TestTLSIsInTime(t *testing.T) {
	r := newTLSRig(t)
	hello := r.firstOf(r.client())
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
	hello := r.firstOf(r.client())
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

// TestTLSMemory is asked for before it is used, and a client that sends more than it may
// is cut off.
func TestTLSMemory(t *testing.T) {
	r := newTLSRig(t)
	r.options.ClientCAFile = r.authority.File(t)
	try := func(config *tls.Config) (held int64, err error) {
		r.held.Store(0)
		raw, done := r.begin(KindTCP, patience)
		_ = tls.Client(raw, config).Handshake()
		o := await(t, done)
		_ = raw.Close()
		if o.client != nil {
			o.client.Reset()
		}
		return r.held.Load(), o.err
	}
	usual, err := try(r.client("web.corp"))
	if err != nil || usual < tlsMemory || usual > 4*tlsMemory {
		t.Errorf("%d bytes are held, %v", usual, err)
	}
	config := r.client("web.corp")
	chain := &config.Certificates[0].Certificate
	for size := 0; size < maxFlight-4<<10; size += len((*chain)[len(*chain)-1]) {
		*chain = append(*chain, r.authority.Certificate.Raw)
	}
	if held, err := try(config); err != nil || held < usual+maxFlight {
		t.Errorf("a large chain: %d bytes are held, %v", held, err)
	}
	for range 20 {
		*chain = append(*chain, r.authority.Certificate.Raw)
	}
	if held, err := try(config); Reason(err) != "tls" || !strings.Contains(err.Error(), "more than 16384 bytes") || !strings.Contains(Hint(err), "certificates") || held > usual+(flightMemory+1)*maxFlight {
		t.Errorf("too large a chain: %d bytes are held, %v, hint %q", held, err, Hint(err))
	}
	for _, most := range []int64{1, usual - 500} {
		r.most = most
		if _, err := try(r.client("web.corp")); !errors.Is(err, errNoMemory) {
			t.Errorf("with %d bytes: %v", most, err)
		}
	}
}

// TestTLSFilesOfNoUse: the client is reset, and the log says why.
func TestTLSFilesOfNoUse(t *testing.T) {
	r := newTLSRig(t)
	if err := os.Remove(r.options.Pairs[0].KeyFile); err != nil {
		t.Fatal(err)
	}
	raw, done := r.begin(KindHTTP, patience)
	if err := tls.Client(raw, r.client()).Handshake(); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the client is told %v", err)
	}
	if o := await(t, done); !errors.Is(o.err, os.ErrNotExist) || Reason(o.err) != "tls" || !strings.Contains(Hint(o.err), "tls block") {
		t.Errorf("error %v, hint %q", o.err, Hint(o.err))
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
