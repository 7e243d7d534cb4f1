package listen

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"github.com/tunneld/tunneld/core/internal/tunnel"
	"github.com/tunneld/tunneld/internal/bare"
	"github.com/tunneld/tunneld/internal/socks5"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// registered are the error types of RFC 9209, section 2.3, that a proxy can give
// before a tunnel stands.
var registered = strings.Fields(`dns_timeout dns_error destination_not_found destination_unavailable
	destination_ip_prohibited destination_ip_unroutable connection_refused connection_terminated
	connection_timeout connection_limit_reached tls_protocol_error tls_certificate_error
	http_request_error http_request_denied proxy_internal_error proxy_configuration_error`)

// TestAnswers: every reason of the protocol has its row, once, with words that
// clients know; none is a success, and none asks the client for a password.
func TestAnswers(t *testing.T) {
	seen := map[pluginv1.Reason]bool{}
	for _, a := range Answers() {
		if seen[a.Reason] {
			t.Errorf("%s has two rows", a.Reason.Text())
		}
		seen[a.Reason] = true
		if a.SOCKS == 0 || a.SOCKS > 8 {
			t.Errorf("%s: SOCKS reply %d", a.Reason.Text(), a.SOCKS)
		}
		if a.Status < 400 || http.StatusText(a.Status) == "" || a.Status == http.StatusProxyAuthRequired {
			t.Errorf("%s: status %d", a.Reason.Text(), a.Status)
		}
		if text := a.Alert.Error(); a.Alert == 0 || strings.Contains(text, "alert(") {
			t.Errorf("%s: alert %d, %s", a.Reason.Text(), a.Alert, text)
		}
		found := false
		for _, r := range registered {
			found = found || r == a.ProxyError
		}
		if !found {
			t.Errorf("%s: %q is no error type of RFC 9209", a.Reason.Text(), a.ProxyError)
		}
	}
	for n := range pluginv1.Reason_name {
		if r := pluginv1.Reason(n); r != pluginv1.Reason_REASON_UNSPECIFIED && !seen[r] {
			t.Errorf("%s has no row", r.Text())
		}
	}
	if a := answerTo(pluginv1.Reason_REASON_UNSPECIFIED); a.SOCKS == 0 || a.Status < 500 || a.Alert != alertInternalError {
		t.Errorf("without a reason: %+v", a)
	}
}

// TestRefusalPerReason: each reason as clients of each kind read it.
func TestRefusalPerReason(t *testing.T) {
	for _, a := range Answers() {
		t.Run(a.Reason.Text(), func(t *testing.T) {
			refuse := func(kind, request string) []byte {
				c, done := begin(t, kind, patience)
				send(t, c, request, thenEOF)
				o := await(t, done)
				if o.err != nil {
					t.Fatal(o.err)
				}
				o.client.Refuse(t.Context(), &tunnel.DialError{Reason: a.Reason, Message: "m"})
				b, err := io.ReadAll(c)
				if err != nil {
					t.Fatal(err)
				}
				return b
			}
			got := refuse(KindSOCKS5, "\x05\x01\x00\x05\x01\x00\x03\x02db\x00\x50")
			if want := greeted + string(socksReply(a.SOCKS)); string(got) != want {
				t.Errorf("socks5: % x, want % x", got, want)
			}
			got = refuse(KindHTTP, "CONNECT db:80 HTTP/1.1\r\n\r\n")
			if !strings.Contains(string(got), "error="+a.ProxyError+";") {
				t.Errorf("http: %q", got)
			}
			if got := refuse(KindSNI, helloFor(t, "db")); string(got) != string(tlsAlert(a.Alert)) {
				t.Errorf("sni: % x", got)
			}
		})
	}
}

// refuseBeyondALimit connects a client that is refused until ctx is done.
func refuseBeyondALimit(t *testing.T, ctx context.Context, kind string, login Login) (c *net.TCPConn, done <-chan struct{}) {
	t.Helper()
	s, err := Bind(t.Context(), "127.0.0.1:0", Options{})
	if err != nil {
		t.Fatal(err)
	}
	connected, refused := make(chan struct{}), make(chan struct{})
	s.Serve(quiet(), func(c *bare.Socket, _ bare.Peer) {
		<-connected // a reset while the client connects would fail that instead
		Refuse(ctx, speaking(t, kind), NewConn(c), HandshakeOptions{Login: login}, &tunnel.DialError{
			Reason:  pluginv1.Reason_REASON_UNAVAILABLE,
			Message: "limits.max_connections: 7 connections are open on this listener",
		})
		close(refused)
	}, func() {})
	c = dial(t, s.Addr())
	t.Cleanup(func() {
		_ = c.Close()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	close(connected)
	return c, refused
}

// TestRefuseBeyondALimit: http and sni are told at once, socks5 once it has asked; tcp is
// reset.
func TestRefuseBeyondALimit(t *testing.T) {
	t.Run(KindTCP, func(t *testing.T) {
		c, _ := refuseBeyondALimit(t, t.Context(), KindTCP, nil)
		if got, err := io.ReadAll(c); len(got) > 0 || !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("read %q, %v; want a reset", got, err)
		}
	})
	t.Run(KindHTTP, func(t *testing.T) {
		for _, login := range []Login{nil, neverAsked(t)} {
			c, _ := refuseBeyondALimit(t, t.Context(), KindHTTP, login)
			got, err := io.ReadAll(c)
			checkAnswer(t, got, err, "HTTP/1.1 503 Service Unavailable")
			if !strings.Contains(string(got), "max_connections: 7") {
				t.Errorf("%q", got)
			}
		}
	})
	t.Run(KindSNI, func(t *testing.T) {
		c, _ := refuseBeyondALimit(t, t.Context(), KindSNI, nil)
		client := tls.Client(c, &tls.Config{ServerName: "db"})
		if err := client.Handshake(); err == nil || !strings.Contains(err.Error(), "internal error") {
			t.Errorf("the client is told %v", err)
		}
	})
	const toDB = "\x05\x01\x00\x03\x02db\x00\x50"
	for name, tt := range map[string]struct {
		send, answer string
		login        Login
	}{
		"a request":                           {send: "\x05\x01\x00" + toDB, answer: greeted + generalFailure},
		"no method":                           {send: "\x05\x01\x02", answer: "\x05\xff"},
		"nothing":                             {},
		"another protocol":                    {send: "\x04\x01\x00\x50\x7f\x00\x00\x01\x00", answer: "\x00\x5b\x00\x00\x00\x00\x00\x00"},
		"an incoming request":                 {send: "\x05\x01\x00\x05\x02\x00\x03\x02db\x00\x50", answer: greeted + string(socksReply(socks5.CommandNotSupported))},
		"with auth, who can do without":       {send: "\x05\x02\x00\x02" + toDB, answer: greeted + generalFailure, login: neverAsked(t)},
		"with auth, who offers a password":    {send: "\x05\x01\x02\x01\x05alice\x01x" + toDB, answer: "\x05\x02\x01\x00" + generalFailure, login: neverAsked(t)},
		"with auth, who offers neither":       {send: "\x05\x01\x01", answer: "\x05\xff", login: neverAsked(t)},
		"with auth, who does not send it all": {send: "\x05\x01\x02\x01\x05ali", answer: "\x05\x02\x01\x01", login: neverAsked(t)},
	} {
		t.Run(KindSOCKS5+", "+name, func(t *testing.T) {
			c, _ := refuseBeyondALimit(t, t.Context(), KindSOCKS5, tt.login)
			send(t, c, tt.send, thenEOF)
			got, err := io.ReadAll(c)
			checkAnswer(t, got, err, tt.answer)
		})
	}
}

// TestRefusalIsBrokenOff: a stop does not wait for what a client beyond a limit
// has to say.
func TestRefusalIsBrokenOff(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	c, done := refuseBeyondALimit(t, ctx, KindSOCKS5, nil)
	send(t, c, "\x05\x01\x00", inOnePiece)
	method := make([]byte, len(greeted))
	if _, err := io.ReadFull(c, method); err != nil || string(method) != greeted {
		t.Fatalf("read % x, %v", method, err)
	}
	cancel()
	if got, err := io.ReadAll(c); len(got) > 0 || !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read %q, %v; want a reset", got, err)
	}
	<-done
}
