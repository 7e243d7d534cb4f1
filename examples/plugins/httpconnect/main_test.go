package main

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/tunneld/tunneld/plugins/sdk"
	"github.com/tunneld/tunneld/plugins/sdk/sdktest"
)

// proxy is an HTTP proxy that lets alice in, and answers CONNECT with status,
// where that is set, instead of connecting.
func proxy(t *testing.T, status string) string {
	return serve(t, func(c net.Conn) {
		r := bufio.NewReader(c)
		ask, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		if ask.Header.Get("Proxy-Authorization") != "Basic YWxpY2U6czNjcmV0" { // alice:s3cret
			_, _ = io.WriteString(c, "HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
			return
		}
		if status != "" {
			_, _ = io.WriteString(c, "HTTP/1.1 "+status+"\r\n\r\n")
			return
		}
		target, err := net.Dial("tcp", ask.Host)
		if err != nil {
			_, _ = io.WriteString(c, "HTTP/1.1 502 Bad Gateway\r\n\r\n")
			return
		}
		defer target.Close()
		// The target's first bytes come in one packet with the answer.
		first := make([]byte, len(greeting))
		if _, err := io.ReadFull(target, first); err != nil {
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 200 Connection established\r\n\r\n"+string(first))
		go func() {
			_, _ = io.Copy(target, r)
			_ = target.(*net.TCPConn).CloseWrite()
		}()
		_, _ = io.Copy(c, target)
	})
}

const greeting = "hello\n"

// echo greets, and sends back what comes.
func echo(t *testing.T) string {
	return serve(t, func(c net.Conn) {
		_, _ = io.WriteString(c, greeting)
		_, _ = io.Copy(c, c)
	})
}

func serve(t *testing.T, handle func(net.Conn)) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return // closed
			}
			go func() {
				defer c.Close()
				handle(c)
			}()
		}
	}()
	return ln.Addr().String()
}

// sdktest runs the plugin as the daemon would, through real gRPC.
func dial(t *testing.T, target string, values map[string]any) (*sdktest.Conn, error) {
	t.Helper()
	return sdktest.Start(t, plugin()).Configure(t, "test", values).Dial(t.Context(), target)
}

func alice(proxy string) map[string]any {
	return map[string]any{"proxy": proxy, "username": "alice", "password": "s3cret"}
}

func TestTunnel(t *testing.T) {
	c, err := dial(t, echo(t), alice(proxy(t, "")))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(c, "ping"); err != nil {
		t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(c); string(got) != greeting+"ping" || err != nil {
		t.Errorf("read %q, %v", got, err)
	}
}

// "0s" stands for no bound.
func TestNoTimeouts(t *testing.T) {
	values := alice(proxy(t, ""))
	values["timeouts"] = map[string]any{"connect": "0s", "handshake": "0s"}
	c, err := dial(t, echo(t), values)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
}

func TestErrors(t *testing.T) {
	silent := serve(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	endless := serve(t, func(c net.Conn) {
		for {
			if _, err := io.WriteString(c, strings.Repeat("x", 4096)); err != nil {
				return
			}
		}
	})
	for name, tt := range map[string]struct {
		values map[string]any
		reason sdk.Reason
		hint   string
	}{
		"wrong password": {map[string]any{"proxy": proxy(t, ""), "username": "alice", "password": "wrong"}, sdk.ReasonUnauthenticated, "username and password"},
		"forbidden":      {alice(proxy(t, "403 Forbidden")), sdk.ReasonDenied, "administrator"},
		"no target":      {alice(proxy(t, "")), sdk.ReasonUnavailable, "cannot reach the target"},
		"not a proxy":    {alice(echo(t)), sdk.ReasonProtocol, "is an HTTP proxy"},
		"endless":        {alice(endless), sdk.ReasonProtocol, "is an HTTP proxy"},
		"no proxy":       {alice("127.0.0.1:1"), sdk.ReasonRefused, ""},
		"silent":         {map[string]any{"proxy": silent, "timeouts": map[string]any{"handshake": "50ms"}}, sdk.ReasonTimeout, "timeouts.handshake"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := dial(t, "127.0.0.1:1", tt.values)
			var e *sdk.DialError
			if !errors.As(err, &e) || e.Reason != tt.reason || !strings.Contains(e.Hint, tt.hint) {
				t.Errorf("got %+v", err)
			}
			if strings.Contains(err.Error(), "wrong") {
				t.Errorf("the password is in %v", err)
			}
		})
	}
}

// A label is refused before anything is connected to.
func TestLabel(t *testing.T) {
	_, err := dial(t, "orders", alice("127.0.0.1:1"))
	var e *sdk.DialError
	if !errors.As(err, &e) || e.Reason != sdk.ReasonUnreachable || e.Stage != sdk.StageRequest || e.Retryable {
		t.Errorf("got %+v", err)
	}
}

func TestConfiguration(t *testing.T) {
	p := sdktest.Start(t, plugin())
	for name, values := range map[string]map[string]any{
		"no proxy": {},
		"no port":  {"proxy": "proxy.corp"},
		"bad port": {"proxy": "proxy.corp:http"},
		"no user":  {"proxy": "proxy.corp:3128", "password": "s3cret"},
		"a colon":  {"proxy": "proxy.corp:3128", "username": "a:b", "password": "s3cret"},
	} {
		if ds := p.TryConfigure(t, "test", values); len(ds) != 1 {
			t.Errorf("%s: %+v", name, ds)
		}
	}
}
