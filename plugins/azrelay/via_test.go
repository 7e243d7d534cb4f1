package azrelay_test

import (
	"bufio"
	"crypto/tls"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	armon "github.com/armon/go-socks5"

	"github.com/tunneld/tunneld/internal/nettest"
	"github.com/tunneld/tunneld/plugins/azrelay/azrelayemu"
	"github.com/tunneld/tunneld/plugins/sdk"
	"github.com/tunneld/tunneld/plugins/sdk/sdktest"
)

// join copies both ways until both have ended.
func join(a, b *net.TCPConn, fromA io.Reader) {
	var wg sync.WaitGroup
	wg.Go(func() { _, _ = io.Copy(b, fromA); _ = b.CloseWrite() })
	wg.Go(func() { _, _ = io.Copy(a, b); _ = a.CloseWrite() })
	wg.Wait()
}

// httpProxy is a CONNECT proxy. It answers with status where that is not 0, and
// wants user and password where auth is not empty.
func httpProxy(t *testing.T, auth string, status int) string {
	t.Helper()
	return nettest.Serve(t, func(c *net.TCPConn) {
		br := bufio.NewReader(c)
		req, err := http.ReadRequest(br)
		if err != nil {
			t.Errorf("proxy: %v", err)
			return
		}
		answer := "HTTP/1.1 200 Connection established\r\n\r\n"
		switch {
		case auth != "" && req.Header.Get("Proxy-Authorization") != "Basic "+base64.StdEncoding.EncodeToString([]byte(auth)):
			answer = "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n"
		case status != 0:
			answer = fmt.Sprintf("HTTP/1.1 %d %s\r\nContent-Length: 0\r\n\r\n", status, http.StatusText(status))
		}
		_, _ = io.WriteString(c, answer)
		if !strings.Contains(answer, "200") {
			return
		}
		out, err := net.Dial("tcp", req.URL.Host)
		if err != nil {
			t.Errorf("proxy: %v", err)
			return
		}
		defer out.Close()
		join(c, out.(*net.TCPConn), br)
	})
}

func TestVia(t *testing.T) {
	plainService := startEmulator(t, azrelayemu.Options{Forward: []azrelayemu.Forward{{HybridConnection: "hc1", Target: nettest.Serve(t, nettest.Echo)}}})
	service := startEmulator(t, azrelayemu.Options{TLS: true, Forward: []azrelayemu.Forward{{HybridConnection: "hc1", Target: nettest.Serve(t, nettest.Echo)}}})
	for _, s := range []*azrelayemu.Server{plainService, service} {
		for name, via := range map[string]string{
			"http":                 "http://" + httpProxy(t, "", 0),
			"http with a password": "http://alice:p%40ss@" + httpProxy(t, "alice:p@ss", 0),
			"socks5":               "socks5://" + socksProxy(t, nil),
			"socks5 with password": "socks5://alice:p%40ss@" + socksProxy(t, armon.StaticCredentials{"alice": "p@ss"}),
		} {
			t.Run(name+" "+s.URL()[:3], func(t *testing.T) { roundTrip(t, upstream(t, body(t, s, map[string]any{"via": via}))) })
		}
	}
	t.Run("https", func(t *testing.T) {
		proxy, ca := httpsProxy(t)
		file := filepath.Join(t.TempDir(), "both.pem")
		if err := os.WriteFile(file, append(ca, service.CA()...), 0o600); err != nil {
			t.Fatal(err)
		}
		roundTrip(t, upstream(t, body(t, service, map[string]any{"via": "https://" + proxy, "tls": map[string]any{"ca_file": file}})))
	})
}

func TestViaFailures(t *testing.T) {
	s := startEmulator(t, azrelayemu.Options{HybridConnections: map[string]azrelayemu.HybridConnection{"hc1": {Anonymous: true}}})
	silent := nettest.Serve(t, func(c *net.TCPConn) { _, _ = io.Copy(io.Discard, c) })
	for _, tt := range []struct {
		name   string
		via    string
		reason sdk.Reason
		hint   string
	}{
		{"wrong password", "http://alice:wrong@" + httpProxy(t, "alice:right", 0), sdk.ReasonUnauthenticated, "in via"},
		{"wrong password for socks5", "socks5://alice:wrong@" + socksProxy(t, armon.StaticCredentials{"alice": "right"}), sdk.ReasonUnauthenticated, "in via"},
		{"no password for socks5", "socks5://" + socksProxy(t, armon.StaticCredentials{"alice": "right"}), sdk.ReasonUnauthenticated, "in via"},
		{"forbidden", "http://" + httpProxy(t, "", 403), sdk.ReasonDenied, "allows"},
		{"bad gateway", "http://" + httpProxy(t, "", 502), sdk.ReasonUnreachable, "cannot reach"},
		{"gateway timeout", "http://" + httpProxy(t, "", 504), sdk.ReasonTimeout, ""},
		{"a proxy that says nothing", "http://" + silent, sdk.ReasonTimeout, ""},
		{"a socks5 proxy that says nothing", "socks5://" + silent, sdk.ReasonTimeout, ""},
		{"not a socks5 proxy", "socks5://" + nettest.Serve(t, func(c *net.TCPConn) { _, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n") }), sdk.ReasonProtocol, "not a SOCKS5 proxy"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			connect := "10s"
			if strings.Contains(tt.name, "says nothing") {
				connect = "500ms"
			}
			e := dialError(t, upstream(t, body(t, s, map[string]any{"via": tt.via, "timeouts": map[string]any{"connect": connect}})), "label")
			if e.Stage != sdk.StageConnect || e.Reason != tt.reason || !strings.Contains(e.Hint, tt.hint) {
				t.Errorf("%v, %v", e, e.Reason)
			}
			if strings.Contains(e.Error(), "wrong") {
				t.Errorf("the password is in %q", e.Error())
			}
		})
	}
}

// TestServiceWantsACertificate: with TLS 1.3 it says so instead of an answer to the
// handshake.
func TestServiceWantsACertificate(t *testing.T) {
	for version, want := range map[uint16]sdk.DialError{
		tls.VersionTLS12: {Stage: sdk.StageTLS, Reason: sdk.ReasonProtocol},
		tls.VersionTLS13: {Stage: sdk.StageHandshake, Reason: sdk.ReasonUnauthenticated},
	} {
		address, ca := nettest.WantsCertificate(t, version)
		e := dialError(t, upstream(t, map[string]any{"endpoint": "wss://" + address, "hybrid_connection": "hc1", "tls": map[string]any{"ca_file": ca}}), "label")
		if e.Stage != want.Stage || e.Reason != want.Reason || !e.Retryable || !strings.Contains(e.Hint, "tls.cert_file") {
			t.Errorf("%s: %+v", tls.VersionName(version), e)
		}
	}
}

// roundTrip dials and has the target echo.
func roundTrip(t *testing.T, u *sdktest.Upstream) {
	t.Helper()
	c := dial(t, u, "label")
	if _, err := io.WriteString(c, "hello"); err != nil {
		t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got := readAll(t, c); got != "hello" {
		t.Errorf("read %q", got)
	}
}

// socksProxy is an independent SOCKS5 server.
func socksProxy(t *testing.T, users armon.StaticCredentials) string {
	t.Helper()
	config := &armon.Config{Logger: log.New(io.Discard, "", 0)}
	if users != nil {
		config.Credentials = users
	}
	server, err := armon.New(config)
	if err != nil {
		t.Fatal(err)
	}
	return nettest.Serve(t, func(c *net.TCPConn) { _ = server.ServeConn(c) })
}

// httpsProxy is a CONNECT proxy behind TLS, and its authority.
func httpsProxy(t *testing.T) (address string, ca []byte) {
	t.Helper()
	handler := http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		out, err := net.Dial("tcp", req.Host)
		if err != nil {
			t.Errorf("proxy: %v", err)
			return
		}
		defer out.Close()
		w.WriteHeader(http.StatusOK)
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Errorf("proxy: %v", err)
			return
		}
		defer conn.Close()
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = io.Copy(out, rw); _ = out.(*net.TCPConn).CloseWrite() })
		wg.Go(func() { _, _ = io.Copy(conn, out); _ = conn.Close() })
		wg.Wait()
	})
	s := httptest.NewTLSServer(handler)
	t.Cleanup(s.Close)
	return s.Listener.Addr().String(), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
}
