package outbound

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/bare"
	"github.com/tunneld/tunneld/internal/neterr"
	"github.com/tunneld/tunneld/internal/nettest"
	"github.com/tunneld/tunneld/internal/proxytest"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

const patience = 10 * time.Second

// serve answers each connection with f, which the test waits for.
var serve = nettest.Serve

// upper answers in capitals once its peer has ended, and then ends.
func upper(c *net.TCPConn) {
	b, _ := io.ReadAll(c)
	_, _ = c.Write(bytes.ToUpper(b))
}

// greeter speaks first.
func greeter(c *net.TCPConn) {
	_, _ = io.WriteString(c, "220 ready\r\n")
	upper(c)
}

// trusting is the TLS configuration for servers of the file's authority; "": the
// system's hold.
func trusting(file string) (*tls.Config, error) {
	if file == "" {
		return &tls.Config{ServerName: "127.0.0.1"}, nil
	}
	b, err := os.ReadFile(file)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(b)
	return &tls.Config{ServerName: "127.0.0.1", RootCAs: pool}, err
}

func via(t *testing.T, text string) Via {
	t.Helper()
	v, err := ParseVia(text)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// TestVia: through each kind of proxy bytes come whole, those at once behind the
// proxy's answer included, and each direction ends by itself.
func TestVia(t *testing.T) {
	target := serve(t, greeter)
	open, locked := proxytest.HTTP(t, ""), proxytest.HTTP(t, "al:ice:p@ss")
	tlsOpen, tlsLocked := proxytest.HTTPS(t, ""), proxytest.HTTPS(t, "bob:pw")
	for name, tt := range map[string]struct {
		via string
		ca  string
	}{
		"none":                 {"", ""},
		"http":                 {"http://" + open.Addr, ""},
		"http with a password": {"http://al%3Aice:p%40ss@" + locked.Addr, ""},
		"https":                {"https://" + tlsOpen.Addr, tlsOpen.CAFile},
		"https with one":       {"https://bob:pw@" + tlsLocked.Addr, tlsLocked.CAFile},
		"socks5":               {"socks5://" + proxytest.SOCKS5(t, "", "").Addr, ""},
		"socks5h":              {"socks5h://" + proxytest.SOCKS5(t, "", "").Addr, ""},
		"socks5 with one":      {"socks5://alice:p%40ss@" + proxytest.SOCKS5(t, "alice", "p@ss").Addr, ""},
	} {
		t.Run(name, func(t *testing.T) {
			d := &Dialer{Via: via(t, tt.via)}
			d.TLS = func(string) (*tls.Config, error) {
				return trusting(tt.ca)
			}
			var stages []pluginv1.Stage
			conn, err := d.Dial(t.Context(), target, func(s pluginv1.Stage) { stages = append(stages, s) })
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(patience))
			if _, ok := conn.(*net.TCPConn); ok == (tt.ca != "") {
				t.Errorf("a %T", conn)
			}
			if _, ok := bare.Under(conn).(*net.TCPConn); !ok {
				t.Errorf("at the bottom a %T", bare.Under(conn))
			}
			if len(stages) != 1 || stages[0] != pluginv1.Stage_STAGE_CONNECT {
				t.Errorf("stages %v", stages)
			}
			if _, err := io.WriteString(conn, "hello"); err != nil {
				t.Fatal(err)
			}
			if err := conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(conn); string(got) != "220 ready\r\nHELLO" || err != nil {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
}

// TestViaRefuses: what a proxy that refuses is told as, and that no password is.
func TestViaRefuses(t *testing.T) {
	says := func(answer string) string {
		return serve(t, func(c *net.TCPConn) {
			if _, err := http.ReadRequest(bufio.NewReader(c)); err != nil {
				t.Errorf("proxy: %v", err)
			}
			_, _ = io.WriteString(c, answer)
		})
	}
	replies := func(code byte) string {
		return serve(t, func(c *net.TCPConn) {
			_, _ = io.ReadFull(c, make([]byte, 4)) // two methods
			_, _ = c.Write([]byte{5, 0})
			_, _ = io.ReadFull(c, make([]byte, 10))
			_, _ = c.Write([]byte{5, code, 0, 1, 0, 0, 0, 0, 0, 0})
		})
	}
	silent := serve(t, func(c *net.TCPConn) { _, _ = io.Copy(io.Discard, c) })
	tlsProxy := proxytest.HTTPS(t, "").Addr
	for name, tt := range map[string]struct {
		via       string
		reason    pluginv1.Reason
		retryable bool
		text      string
		hint      string
	}{
		"407":                {"http://u:s3cr3t@" + says("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"), pluginv1.Reason_REASON_UNAUTHENTICATED, false, "it answered 407 Proxy Authentication Required", "user and password in via"},
		"401":                {"http://u:s3cr3t@" + says("HTTP/1.1 401 Unauthorized\r\n\r\n"), pluginv1.Reason_REASON_UNAUTHENTICATED, false, "it answered 401 Unauthorized", "user and password in via"},
		"403":                {"http://" + says("HTTP/1.1 403 Forbidden\r\n\r\n"), pluginv1.Reason_REASON_DENIED, false, "it answered 403 Forbidden", "allows"},
		"404":                {"http://" + says("HTTP/1.1 404 No\r\n\r\n"), pluginv1.Reason_REASON_DENIED, false, "it answered 404 No", "allows"},
		"429":                {"http://" + says("HTTP/1.1 429 Slow\r\nRetry-After: 7\r\n\r\n"), pluginv1.Reason_REASON_UNAVAILABLE, true, "it answered 429 Slow", "log"},
		"502":                {"http://" + says("HTTP/1.1 502 Bad\r\n\r\n"), pluginv1.Reason_REASON_UNREACHABLE, true, "it answered 502 Bad", "cannot reach"},
		"503":                {"http://" + says("HTTP/1.1 503 Bad\r\nRetry-After: 7\r\n\r\n"), pluginv1.Reason_REASON_UNREACHABLE, true, "it answered 503 Bad", "cannot reach"},
		"504":                {"http://" + says("HTTP/1.1 504 Late\r\n\r\n"), pluginv1.Reason_REASON_TIMEOUT, true, "it answered 504 Late", "does not answer the proxy"},
		"500":                {"http://" + says("HTTP/1.1 500 Oh\r\n\r\n"), pluginv1.Reason_REASON_UNAVAILABLE, true, "it answered 500 Oh", "log"},
		"302":                {"http://" + says("HTTP/1.1 302 There\r\n\r\n"), pluginv1.Reason_REASON_PROTOCOL, false, "it answered 302 There", "log"},
		"an echo":            {"http://u:s3cr3t@" + says("HTTP/1.1 403 not with s3cr3t and "+base64.StdEncoding.EncodeToString([]byte("u:s3cr3t"))+"\r\n\r\n"), pluginv1.Reason_REASON_DENIED, false, "it answered 403 not with [redacted] and [redacted]", "allows"},
		"no HTTP":            {"http://u:s3cr3t@" + says("SSH-2.0-OpenSSH s3cr3t\r\n\r\n"), pluginv1.Reason_REASON_PROTOCOL, false, "its answer is not HTTP", "not an HTTP proxy"},
		"no end":             {"http://" + says("HTTP/1.1 200 OK\r\nX: "+strings.Repeat("y", 70<<10)), pluginv1.Reason_REASON_PROTOCOL, false, "more than 65536 bytes", "not an HTTP proxy"},
		"1xx without end":    {"http://" + says(strings.Repeat("HTTP/1.1 102 Processing\r\n\r\n", 9)), pluginv1.Reason_REASON_PROTOCOL, false, "it keeps sending informational answers", "not an HTTP proxy"},
		"hangs up":           {"http://" + says(""), pluginv1.Reason_REASON_PROTOCOL, true, "EOF", "middle of the handshake"},
		"silent":             {"http://" + silent, pluginv1.Reason_REASON_TIMEOUT, true, "no answer in time", "accepted the connection but did not answer"},
		"silent SOCKS5":      {"socks5://u:s3cr3t@" + silent, pluginv1.Reason_REASON_TIMEOUT, true, "no answer in time", "accepted the connection but did not answer"},
		"silent TLS":         {"https://" + silent, pluginv1.Reason_REASON_TIMEOUT, true, "", ""},
		"unknown authority":  {"https://" + tlsProxy, pluginv1.Reason_REASON_PROTOCOL, false, "TLS handshake with the proxy", "tls.ca_file"},
		"not SOCKS5":         {"socks5://" + serve(t, func(c *net.TCPConn) { _, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n") }), pluginv1.Reason_REASON_PROTOCOL, false, "", "not a SOCKS5 proxy"},
		"SOCKS5 password":    {"socks5://u:s3cr3t@" + proxytest.SOCKS5(t, "u", "other").Addr, pluginv1.Reason_REASON_UNAUTHENTICATED, false, "it refused user and password", "via"},
		"SOCKS5 without one": {"socks5://" + proxytest.SOCKS5(t, "u", "other").Addr, pluginv1.Reason_REASON_UNAUTHENTICATED, false, "none of the offered authentication methods", "via"},
		"SOCKS5 1":           {"socks5://u:p@" + replies(1), pluginv1.Reason_REASON_UNREACHABLE, true, "general SOCKS server failure", "cannot reach"},
		"SOCKS5 2":           {"socks5://u:p@" + replies(2), pluginv1.Reason_REASON_DENIED, false, "not allowed by ruleset", "allows"},
		"SOCKS5 4":           {"socks5://u:p@" + replies(4), pluginv1.Reason_REASON_UNREACHABLE, true, "host unreachable", "cannot reach"},
		"SOCKS5 5":           {"socks5://u:p@" + replies(5), pluginv1.Reason_REASON_REFUSED, true, "connection refused", "as the proxy sees it"},
		"SOCKS5 6":           {"socks5://u:p@" + replies(6), pluginv1.Reason_REASON_TIMEOUT, true, "TTL expired", "does not answer"},
		"SOCKS5 77":          {"socks5://u:p@" + replies(77), pluginv1.Reason_REASON_DENIED, false, "unassigned code 0x4d", "allows"},
		"nothing listens":    {"http://u:s3cr3t@" + nettest.FreeAddress(t), pluginv1.Reason_REASON_REFUSED, true, "connect to the proxy at 127.0.0.1:", "nothing listens"},
	} {
		t.Run(name, func(t *testing.T) {
			limit := patience
			if tt.reason == pluginv1.Reason_REASON_TIMEOUT && !strings.Contains(tt.text, "answered") && !strings.Contains(tt.text, "TTL") {
				limit = 50 * time.Millisecond
			}
			d := &Dialer{Via: via(t, tt.via), Timeout: limit}
			conn, err := d.Dial(t.Context(), "10.1.2.3:443", nil)
			if err == nil {
				_ = conn.Close()
				t.Fatal("connected")
			}
			m := neterr.ClassifyAt(pluginv1.Stage_STAGE_CONNECT, err)
			if m.Reason != tt.reason || m.Retryable != tt.retryable || !strings.Contains(m.Hint, tt.hint) {
				t.Errorf("%+v of %v", m, err)
			}
			if !strings.Contains(err.Error(), tt.text) || strings.Contains(err.Error(), "s3cr3t") {
				t.Errorf("%v", err)
			}
			var e *neterr.Explained
			if retry := errors.As(err, &e) && e.RetryAfter == 7*time.Second; retry != (name == "429" || name == "503") {
				t.Errorf("retry after: %+v", e)
			}
		})
	}
}

// TestProxyWantsACertificate: it is sent none, so tls.cert_file cannot help.
func TestProxyWantsACertificate(t *testing.T) {
	for version, reason := range map[uint16]pluginv1.Reason{tls.VersionTLS12: pluginv1.Reason_REASON_PROTOCOL, tls.VersionTLS13: pluginv1.Reason_REASON_UNAUTHENTICATED} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			proxy, ca := nettest.WantsCertificate(t, version)
			d := &Dialer{Via: via(t, "https://"+proxy), TLS: func(string) (*tls.Config, error) { return trusting(ca) }, Timeout: patience}
			_, err := d.Dial(t.Context(), "10.1.2.3:443", nil)
			if err == nil || !strings.Contains(err.Error(), "the proxy at "+proxy) {
				t.Fatalf("%v", err)
			}
			if m := neterr.Classify(err); m.Reason != reason || !m.Retryable || !strings.Contains(m.Hint, "proxies are sent none") {
				t.Errorf("%+v of %v", m, err)
			}
		})
	}
}

// TestViaIsCancelled: who gives up is not held by a proxy that is silent, and what
// was begun there ends.
func TestViaIsCancelled(t *testing.T) {
	for _, scheme := range []string{"http", "https", "socks5"} {
		t.Run(scheme, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan struct{})
			proxy := serve(t, func(c *net.TCPConn) {
				_, _ = c.Read(make([]byte, 1))
				cancel()
				_, _ = io.Copy(io.Discard, c)
				close(ended)
			})
			_, err := (&Dialer{Via: via(t, scheme+"://"+proxy)}).Dial(ctx, "10.1.2.3:443", nil)
			if neterr.Classify(err).Reason != pluginv1.Reason_REASON_CANCELED {
				t.Errorf("%v", err)
			}
			<-ended
		})
	}
}

// TestTheProxyResolves: a name goes to the proxy in ASCII and without the dot that keeps
// this machine's resolver from its search list.
func TestTheProxyResolves(t *testing.T) {
	for _, tt := range []struct{ scheme, address, want string }{
		{"http", "far.invalid:443", "CONNECT far.invalid:443 "},
		{"http", "far.invalid.:443", "CONNECT far.invalid:443 "},
		{"http", "bücher.invalid.:443", "CONNECT xn--bcher-kva.invalid:443 "},
		{"socks5", "far.invalid:443", "\x03\x0bfar.invalid"},
		{"socks5", "far.invalid.:443", "\x03\x0bfar.invalid\x01\xbb"},
	} {
		got := make(chan string, 1)
		proxy := serve(t, func(c *net.TCPConn) {
			if tt.scheme == "socks5" {
				_, _ = io.ReadFull(c, make([]byte, 3))
				_, _ = c.Write([]byte{5, 0})
			}
			b := make([]byte, 100)
			n, _ := io.ReadAtLeast(c, b, 18)
			got <- string(b[:n])
		})
		_, err := (&Dialer{Via: via(t, tt.scheme+"://"+proxy)}).Dial(t.Context(), tt.address, nil)
		if text := <-got; err == nil || !strings.Contains(text, tt.want) {
			t.Errorf("%s: %q, %v", tt.address, text, err)
		}
	}
}

func TestBindIsTheSource(t *testing.T) {
	source := make(chan string, 1)
	target := serve(t, func(c *net.TCPConn) {
		host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
		source <- host
	})
	proxy := proxytest.HTTP(t, "").Addr
	for name, d := range map[string]*Dialer{
		"alone":         {Bind: netip.MustParseAddr("127.0.0.7")},
		"before a name": {Bind: netip.MustParseAddr("127.0.0.7"), Resolver: &lookups{answers: map[string]lookup{"ip": {addrs: "127.0.0.1"}, "ip4": {addrs: "127.0.0.1"}}}},
	} {
		address := target
		if d.Resolver != nil {
			_, port, _ := net.SplitHostPort(target)
			address = "far.test:" + port
		}
		conn, err := d.Dial(t.Context(), address, nil)
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.Close()
		if got := <-source; got != "127.0.0.7" {
			t.Errorf("%s: from %s", name, got)
		}
	}
	conn, err := (&Dialer{Bind: netip.MustParseAddr("127.0.0.7"), Via: via(t, "http://"+proxy)}).Dial(t.Context(), target, nil)
	if err != nil {
		t.Fatal(err)
	}
	if host, _, _ := net.SplitHostPort(conn.LocalAddr().String()); host != "127.0.0.7" {
		t.Errorf("to the proxy from %s", host)
	}
	_ = conn.Close()
	if got := <-source; got != "127.0.0.1" {
		t.Errorf("the proxy's own from %s", got)
	}
	_, err = (&Dialer{Bind: netip.MustParseAddr("192.0.2.1")}).Dial(t.Context(), target, nil)
	if m := neterr.Classify(err); m.Reason != pluginv1.Reason_REASON_UNREACHABLE || !strings.Contains(m.Hint, "bind") {
		t.Errorf("from an address of others: %v, %+v", err, m)
	}
}
