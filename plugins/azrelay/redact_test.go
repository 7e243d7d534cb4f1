package azrelay_test

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/tunneld/tunneld/internal/nettest"
	"github.com/tunneld/tunneld/plugins/azrelay/internal/sas"
	"github.com/tunneld/tunneld/plugins/sdk"
)

// echoing is a far end that answers a request with words of it in the status
// line, as gateways do.
func echoing(t *testing.T, say func(*http.Request) string) string {
	return nettest.Serve(t, func(c *net.TCPConn) {
		req, err := http.ReadRequest(bufio.NewReader(c))
		if err != nil {
			t.Errorf("read request: %v", err)
			return
		}
		_, _ = fmt.Fprintf(c, "HTTP/1.1 502 %s\r\nContent-Length: 0\r\n\r\n", say(req))
	})
}

func TestAnEchoedTokenIsNotShown(t *testing.T) {
	header := func(r *http.Request) string { return r.Header.Get("ServiceBusAuthorization") }
	for _, tt := range []struct {
		name, in string
		say      func(*http.Request) string
	}{
		{"the request's URL", "query", func(r *http.Request) string { return "Bad upstream for " + r.RequestURI }},
		{"its path escaped once more", "query", func(r *http.Request) string { return "login?to=" + url.QueryEscape(r.RequestURI) }},
		{"the fields in another order", "query", func(r *http.Request) string {
			fields := strings.Split(strings.TrimPrefix(r.URL.Query().Get("sb-hc-token"), "SharedAccessSignature "), "&")
			return "token with " + fields[1] + ", " + fields[0]
		}},
		{"the header", "header", func(r *http.Request) string { return "Bad " + header(r) }},
		{"the header, in HTML", "header", func(r *http.Request) string {
			return strings.NewReplacer("&", "&amp;", "=", "&#61;").Replace(header(r))
		}},
		{"the header, where the text is shortened", "header", func(r *http.Request) string { return strings.Repeat("x", 400) + header(r) }},
		{"the header, in its middle", "header", func(r *http.Request) string { return strings.Repeat("x", 512-120) + header(r) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			signed := make(chan string, 1)
			endpoint := echoing(t, func(r *http.Request) string {
				signed <- r.URL.Query().Get("sb-hc-token") + header(r)
				return tt.say(r)
			})
			u := upstream(t, plain("ws://"+endpoint, map[string]any{"key_name": "send", "key": "c2VuZGVyIGtleQ==", "token_in": tt.in}))
			e := dialError(t, u, "label")
			sig := signatureOf(t, <-signed)
			st := u.AwaitStatus(within(t), t, func(st sdk.Status) bool { return st.Health == sdk.HealthFailing })
			for _, text := range []string{e.Error(), st.Message} {
				// A few characters of it open nothing; no more may be left.
				if strings.Contains(text, sig[:6]) || !strings.Contains(text, "502") {
					t.Errorf("%q of the signature %q", text, sig)
				}
			}
		})
	}
}

// signatureOf is the part of the token's signature that no escaping changes.
func signatureOf(t *testing.T, token string) string {
	t.Helper()
	if _, err := sas.Parse(token); err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(token, "&sig=")
	for part := range strings.SplitSeq(rest, "%") {
		if len(part) >= 10 {
			return part[2:]
		}
	}
	t.Fatalf("no part of %q is long enough", token)
	return ""
}

func TestEchoedProxyCredentialsAreNotShown(t *testing.T) {
	for name, say := range map[string]func(*http.Request) string{
		"the header": func(r *http.Request) string { return "for " + r.Header.Get("Proxy-Authorization") },
		"decoded": func(r *http.Request) string {
			b, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(r.Header.Get("Proxy-Authorization"), "Basic "))
			return "for " + string(b)
		},
	} {
		t.Run(name, func(t *testing.T) {
			e := dialError(t, upstream(t, plain("ws://127.0.0.1:1", map[string]any{"via": "http://alice:hunter2pass@" + echoing(t, say)})), "label")
			for _, secret := range []string{"hunter2", "aHVudGVyMn", "odW50ZXIy"} {
				if strings.Contains(e.Error(), secret) {
					t.Errorf("%q has %q", e, secret)
				}
			}
			if !strings.Contains(e.Message, "502 for") || !strings.Contains(e.Message, "[redacted]") {
				t.Errorf("message %q", e.Message)
			}
		})
	}
	t.Run("an answer that is not HTTP", func(t *testing.T) {
		proxy := nettest.Serve(t, func(c *net.TCPConn) {
			req, err := http.ReadRequest(bufio.NewReader(c))
			if err != nil {
				t.Errorf("read request: %v", err)
				return
			}
			_, _ = fmt.Fprintf(c, "no %s%s\r\n\r\n", strings.Repeat("x", 2000), req.Header.Get("Proxy-Authorization"))
		})
		e := dialError(t, upstream(t, plain("ws://127.0.0.1:1", map[string]any{"via": "http://alice:hunter2pass@" + proxy, "timeouts": map[string]any{"connect": "10s"}})), "label")
		if len(e.Message) > 1000 || strings.Contains(e.Error(), "odW50ZXIy") {
			t.Errorf("message %q", e.Message)
		}
	})
}
