package engine

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/tunneld/tunneld/core/internal/config"
	"github.com/tunneld/tunneld/core/internal/splice"
	"github.com/tunneld/tunneld/core/internal/tunnel"
	"github.com/tunneld/tunneld/internal/nettest"
	"github.com/tunneld/tunneld/internal/outbound"
	"github.com/tunneld/tunneld/internal/proxytest"
	"github.com/tunneld/tunneld/internal/tlsconf"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// directTo is the built-in upstream with a via.
func directTo(t *testing.T, via string) direct {
	t.Helper()
	v, err := outbound.ParseVia(via)
	if err != nil {
		t.Fatal(err)
	}
	return newDirect(config.Upstream{Type: config.DirectType, Name: "d", Common: config.Common{Via: v}}, tlsconf.NewClient)
}

// dialed asks it for an address.
func dialed(t *testing.T, d direct, address string) (*tunnel.Conn, error) {
	t.Helper()
	to := netip.MustParseAddrPort(address)
	return d.Dial(t.Context(), tunnel.Dial{Target: tunnel.Target{Host: to.Addr().String(), Port: to.Port()}})
}

// pumped joins an upstream with a client, and returns the client's end and what
// becomes of the tunnel.
func pumped(t *testing.T, up *tunnel.Conn) (*net.TCPConn, <-chan splice.Result) {
	t.Helper()
	pump, err := splice.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := pump.Close(); err != nil {
			t.Error(err)
		}
	})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	near, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = near.Close() })
	_ = near.SetDeadline(time.Now().Add(30 * time.Second))
	far, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan splice.Result, 1)
	pump.Start(splice.Tunnel{Client: tunnel.End{Stream: far}, Upstream: up.End, Done: func(r splice.Result) { ended <- r }})
	return near.(*net.TCPConn), ended
}

// greeter speaks first, and answers in capitals once its peer has ended.
func greeter(c *net.TCPConn) {
	_, _ = io.WriteString(c, "220 ready\r\n")
	b, _ := io.ReadAll(c)
	_, _ = io.WriteString(c, strings.ToUpper(string(b)))
}

// converse has a client talk with greeter through a tunnel.
func converse(t *testing.T, up *tunnel.Conn) {
	t.Helper()
	client, ended := pumped(t, up)
	if _, err := io.WriteString(client, "hello"); err != nil {
		t.Fatal(err)
	}
	if err := client.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(client); string(got) != "220 ready\r\nHELLO" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if r := <-ended; r.Reason != tunnel.CloseClientEOF || r.Err != nil || r.Up != 5 || r.Down != 16 {
		t.Errorf("it ended with %+v", r)
	}
}

// TestDirectThroughAProxy: through any proxy the tunnel is whole, and each direction
// ends by itself.
func TestDirectThroughAProxy(t *testing.T) {
	target := nettest.Serve(t, greeter)
	for name, via := range map[string]string{
		"none":   "",
		"http":   "http://u:pw@" + proxytest.HTTP(t, "u:pw").Addr,
		"socks5": "socks5://u:pw@" + proxytest.SOCKS5(t, "u", "pw").Addr,
	} {
		t.Run(name, func(t *testing.T) {
			up, err := dialed(t, directTo(t, via), target)
			if err != nil {
				t.Fatal(err)
			}
			if len(up.Stages) != 1 || up.Stages[0].Stage != pluginv1.Stage_STAGE_CONNECT || up.Path != pluginv1.DataPath_DATA_PATH_DIRECT {
				t.Errorf("stages %v, path %v", up.Stages, up.Path)
			}
			converse(t, up)
		})
	}
}

func TestDirectThroughAProxyThatRefuses(t *testing.T) {
	_, err := dialed(t, directTo(t, "http://u:s3cret@"+proxytest.HTTP(t, "u:other").Addr), "10.1.2.3:443")
	var e *tunnel.DialError
	if !errors.As(err, &e) || e.Stage != pluginv1.Stage_STAGE_CONNECT || e.Reason != pluginv1.Reason_REASON_UNAUTHENTICATED || e.Retryable || !strings.Contains(e.Hint, "via") {
		t.Fatalf("%+v", e)
	}
	if !strings.Contains(e.Message, "through the proxy at 127.0.0.1:") || strings.Contains(e.Error()+e.Hint, "s3cret") {
		t.Errorf("%v", e)
	}
}

// TestProxyThatCannotReachATarget: how long that lasts is no reason to pass the
// upstream over, since other targets may be reached.
func TestProxyThatCannotReachATarget(t *testing.T) {
	for status, want := range map[string]time.Duration{
		"503 Service Unavailable": 0, "403 Forbidden": 0, "504 Gateway Timeout": 0, "429 Too Many Requests": time.Minute,
	} {
		proxy := nettest.Serve(t, func(c *net.TCPConn) {
			if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
				_, _ = io.WriteString(c, "HTTP/1.1 "+status+"\r\nRetry-After: 60\r\nContent-Length: 0\r\n\r\n")
			}
		})
		_, err := dialed(t, directTo(t, "http://"+proxy), "10.1.2.3:443")
		var e *tunnel.DialError
		if !errors.As(err, &e) || e.RetryAfter != want {
			t.Errorf("%s: %+v", status, e)
		}
	}
}

// TestTargetsTLSIsNotTheProxys: a proxy is sent a password, and so is verified
// whatever holds for the target.
func TestTargetsTLSIsNotTheProxys(t *testing.T) {
	t.Setenv(tlsconf.KeyLogEnv, "1")
	block := &config.TLS{Client: tlsconf.ClientOptions{
		InsecureSkipVerify: true, CertFile: "/nonexistent.pem", KeyFile: "/nonexistent.pem",
		MaxVersion: "1.2", CipherSuites: "TLS_RSA_WITH_AES_128_GCM_SHA256", KeyLogFile: "/nonexistent.log",
	}}
	via, err := outbound.ParseVia("https://proxy.test")
	if err != nil {
		t.Fatal(err)
	}
	c, err := newDirect(config.Upstream{TLS: block, Common: config.Common{Via: via}}, tlsconf.NewClient).proxyTLS.Config("proxy.test")
	if err != nil || c.InsecureSkipVerify || c.ServerName != "proxy.test" || c.GetClientCertificate != nil || c.MaxVersion != 0 || c.CipherSuites != nil || c.KeyLogWriter != nil {
		t.Errorf("%+v, %v", c, err)
	}
}

func TestDirectIsBound(t *testing.T) {
	source := make(chan string, 1)
	target := nettest.Serve(t, func(c *net.TCPConn) {
		host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
		source <- host
	})
	d := newDirect(config.Upstream{Common: config.Common{Bind: netip.MustParseAddr("127.0.0.8")}}, tlsconf.NewClient)
	up, err := dialed(t, d, target)
	if err != nil {
		t.Fatal(err)
	}
	up.Socket.Close()
	if got := <-source; got != "127.0.0.8" {
		t.Errorf("from %s", got)
	}
	for address, want := range map[string]string{"192.0.2.77": "this machine", "::1": "bind is an IPv6 one"} {
		d.bind = netip.MustParseAddr(address)
		_, err := dialed(t, d, target)
		var e *tunnel.DialError
		if !errors.As(err, &e) || e.Reason != pluginv1.Reason_REASON_UNREACHABLE || !e.Retryable || !strings.Contains(e.Message+e.Hint, want) {
			t.Errorf("from %s: %+v", address, e)
		}
	}
}
