// Package proxytest has proxies for tests: HTTP with CONNECT, the same behind TLS, and
// SOCKS5.
package proxytest

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/pem"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	armon "github.com/armon/go-socks5"

	"github.com/tunneld/tunneld/internal/nettest"
)

// patience bounds each connection.
const patience = 30 * time.Second

// Proxy is a proxy that lasts as long as the test.
type Proxy struct {
	// Addr is "host:port".
	Addr string
	// CAFile holds the authority of a proxy behind TLS, whose certificate is for
	// 127.0.0.1; empty: none.
	CAFile string

	mu    sync.Mutex
	asked []string
}

// Asked lists the addresses that the proxy was asked for.
func (p *Proxy) Asked() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.asked...)
}

// HTTP returns a proxy for CONNECT, and for plain requests, one a connection. It wants login, "user:password", unless that is
// empty. What the target says at once comes along with the proxy's answer.
func HTTP(t testing.TB, login string) *Proxy {
	t.Helper()
	p := &Proxy{}
	p.Addr = nettest.Serve(t, func(c *net.TCPConn) { p.connect(c, login) })
	return p
}

// HTTPS is HTTP behind TLS.
func HTTPS(t testing.TB, login string) *Proxy {
	t.Helper()
	s := httptest.NewUnstartedServer(nil)
	s.StartTLS() // for its certificate
	config := s.TLS.Clone()
	config.NextProtos = nil
	s.Close()
	p := &Proxy{CAFile: filepath.Join(t.TempDir(), "proxy.pem")}
	if err := os.WriteFile(p.CAFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	p.Addr = nettest.Serve(t, func(c *net.TCPConn) {
		if secured := tls.Server(c, config); secured.Handshake() == nil { // else its peer says why
			p.connect(secured, login)
		}
	})
	return p
}

// SOCKS5 returns a SOCKS5 proxy that was not written here. It wants the password
// unless user is empty.
func SOCKS5(t testing.TB, user, password string) *Proxy {
	t.Helper()
	p := &Proxy{}
	config := &armon.Config{Logger: log.New(io.Discard, "", 0), Rules: notes{p}}
	if user != "" {
		config.Credentials = armon.StaticCredentials{user: password}
	}
	server, err := armon.New(config)
	if err != nil {
		t.Fatal(err)
	}
	p.Addr = nettest.Serve(t, func(c *net.TCPConn) { _ = server.ServeConn(c) })
	return p
}

// notes allows all that a SOCKS5 proxy is asked for, and takes note of it.
type notes struct{ *Proxy }

func (n notes) Allow(ctx context.Context, req *armon.Request) (context.Context, bool) {
	host := req.DestAddr.FQDN
	if host == "" {
		host = req.DestAddr.IP.String()
	}
	n.note(net.JoinHostPort(host, strconv.Itoa(req.DestAddr.Port)))
	return ctx, true
}

func (p *Proxy) note(address string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked = append(p.asked, address)
}

func (p *Proxy) connect(c net.Conn, login string) {
	br := bufio.NewReader(c)
	req, err := http.ReadRequest(br)
	if err != nil {
		return
	}
	p.note(req.Host)
	if login != "" && req.Header.Get("Proxy-Authorization") != "Basic "+base64.StdEncoding.EncodeToString([]byte(login)) {
		_, _ = io.WriteString(c, "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
		return
	}
	if req.Method != http.MethodConnect {
		forward(c, req)
		return
	}
	out, err := net.Dial("tcp", req.Host)
	if err != nil {
		_, _ = io.WriteString(c, "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
		return
	}
	defer out.Close()
	// A target that speaks first has this long to be heard with the answer.
	first := make([]byte, 512)
	_ = out.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	n, _ := out.Read(first)
	_ = out.SetReadDeadline(time.Now().Add(patience))
	_, _ = c.Write(append([]byte("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 Connection established\r\nX: y\r\n\r\n"), first[:n]...))
	var wg sync.WaitGroup
	end := func(c net.Conn) { _ = c.(interface{ CloseWrite() error }).CloseWrite() }
	wg.Go(func() { _, _ = io.Copy(out, br); end(out) })
	wg.Go(func() { _, _ = io.Copy(c, out); end(c) })
	wg.Wait()
}

// forward passes one plain request on.
func forward(c net.Conn, req *http.Request) {
	req.Header.Del("Proxy-Authorization")
	transport := &http.Transport{DisableKeepAlives: true}
	answer, err := transport.RoundTrip(req)
	if err != nil {
		_, _ = io.WriteString(c, "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
		return
	}
	defer answer.Body.Close()
	_ = answer.Write(c) // a test that has gone reads no more
}
