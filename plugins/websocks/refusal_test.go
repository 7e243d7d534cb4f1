package websocks

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	neturl "net/url"
	"strings"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/nettest"
	"github.com/tunneld/tunneld/plugins/sdk"
	"github.com/tunneld/tunneld/plugins/websocks/internal/wire"
	"github.com/tunneld/tunneld/plugins/websocks/websocksemu"
)

// TestRefusals has every way in which a server refuses, and what a user is told.
func TestRefusals(t *testing.T) {
	type faults = websocksemu.Faults
	const (
		handshake = sdk.StageHandshake
		request   = sdk.StageRequest
	)
	replace := func(name, value string) faults { return faults{Replace: map[string]string{name: value}} }
	for _, tt := range []struct {
		name      string
		faults    faults
		stage     sdk.Stage
		reason    sdk.Reason
		retryable bool
		message   string
		hint      string
	}{
		{"200", faults{Status: 200, Body: "<html>hello</html>"}, handshake, sdk.ReasonProtocol, false, `200 OK: "hello"`, "does not speak WebSocket"},
		{"a page with styles", faults{Status: 502, Body: "<title>Gateway</title><style>" + strings.Repeat("p { margin: 0 }\n", 1000) + "</style><h1>no route</h1>"}, handshake, sdk.ReasonUnavailable, true, `502 Bad Gateway: "Gateway: no route"`, ""},
		{"302", faults{Status: 302, Headers: []string{"Location: https://sso.example/login"}}, handshake, sdk.ReasonProtocol, false, "302 Found", "https://sso.example/login"},
		{"304", faults{Status: 304}, handshake, sdk.ReasonProtocol, false, "304 Not Modified", "check the url"},
		{"400", faults{Status: 400}, handshake, sdk.ReasonProtocol, false, "400 Bad Request", "strict about the upgrade"},
		{"401", faults{Status: 401}, handshake, sdk.ReasonUnauthenticated, false, "401 Unauthorized", "set username and password, or those of a proxy in front of it in via"},
		{"403", faults{Status: 403}, handshake, sdk.ReasonDenied, false, "403 Forbidden", "rules"},
		{"404", faults{Status: 404, Body: "no such route"}, handshake, sdk.ReasonNotFound, false, `404 Not Found: "no such route"`, "path"},
		{"407", faults{Status: 407}, handshake, sdk.ReasonUnauthenticated, false, "407 Proxy Authentication Required", "user and password in via"},
		{"408", faults{Status: 408}, handshake, sdk.ReasonTimeout, true, "408 Request Timeout", "no answer"},
		{"426", faults{Status: 426}, handshake, sdk.ReasonProtocol, false, "426 Upgrade Required", "url and headers"},
		{"429", faults{Status: 429}, handshake, sdk.ReasonUnavailable, true, "429 Too Many Requests", "limits"},
		{"501", faults{Status: 501}, handshake, sdk.ReasonProtocol, false, "501 Not Implemented", "does not pass WebSocket"},
		{"502", faults{Status: 502}, handshake, sdk.ReasonUnavailable, true, "502 Bad Gateway", "server runs"},
		{"504", faults{Status: 504}, handshake, sdk.ReasonTimeout, true, "504 Gateway Timeout", "server runs"},
		{"a long body", faults{Status: 500, Body: strings.Repeat("x", 100_000)}, handshake, sdk.ReasonUnavailable, true, strings.Repeat("x", 200) + "…", "server runs"},
		{"a body without end", faults{Status: 500, Body: "started", OpenBody: true}, handshake, sdk.ReasonUnavailable, true, "started", "server runs"},
		{"a body in bytes of any kind", faults{Status: 500, Body: "a\x00\xff\x1b[31m\nb"}, handshake, sdk.ReasonUnavailable, true, "a \uFFFD [31m b", "server runs"},
		{"another protocol", faults{Raw: "SSH-2.0-OpenSSH_9.2\r\n"}, handshake, sdk.ReasonProtocol, false, "not HTTP", "scheme and port"},
		{"TLS", faults{Raw: "\x15\x03\x01\x00\x02\x02\x46\r\n"}, handshake, sdk.ReasonProtocol, false, "not HTTP", "scheme and port"},
		{"a header without end", faults{EndlessHeader: true}, handshake, sdk.ReasonProtocol, false, "more than 65536 bytes", "path"},
		{"1xx without end", faults{Informational: 100}, handshake, sdk.ReasonProtocol, false, "keeps sending", "gateway"},
		{"no Upgrade", replace("Upgrade", ""), handshake, sdk.ReasonProtocol, false, "no Upgrade", "gateway"},
		{"another Upgrade", replace("Upgrade", "h2c"), handshake, sdk.ReasonProtocol, false, "no Upgrade", "gateway"},
		{"no Connection", replace("Connection", ""), handshake, sdk.ReasonProtocol, false, "no Connection", "gateway"},
		{"no accept", replace("Sec-Websocket-Accept", ""), handshake, sdk.ReasonProtocol, false, "Sec-WebSocket-Accept", "in between answers for the server"},
		{"another accept", replace("Sec-Websocket-Accept", wire.Accept("x")), handshake, sdk.ReasonProtocol, false, "Sec-WebSocket-Accept", "in between answers for the server"},
		{"no subprotocol", replace("Sec-WebSocket-Protocol", ""), handshake, sdk.ReasonProtocol, false, "no Sec-WebSocket-Protocol", "not WebSocks"},
		{"another subprotocol", replace("Sec-WebSocket-Protocol", "chat"), handshake, sdk.ReasonProtocol, false, `"chat"`, "not WebSocks"},
		{"two subprotocols", faults{Headers: []string{"Sec-WebSocket-Protocol: chat"}}, handshake, sdk.ReasonProtocol, false, `"socks5, chat"`, "not WebSocks"},
		{"an extension", faults{Headers: []string{"Sec-WebSocket-Extensions: permessage-deflate"}}, handshake, sdk.ReasonProtocol, false, "extension", "gateway"},
		{"SOCKS method 0xff", faults{Method: 0xff}, handshake, sdk.ReasonUnauthenticated, false, "0xff", "SOCKS authentication"},
		{"SOCKS method 0x02", faults{Method: 2}, handshake, sdk.ReasonProtocol, false, "0x02", "may not speak WebSocks"},
		{"REP 1", faults{Reply: 1}, request, sdk.ReasonUnavailable, true, "general SOCKS server failure (1)", "log"},
		{"REP 2", faults{Reply: 2}, request, sdk.ReasonNotFound, true, "could not resolve the target's name (2)", "check the name"},
		{"REP 3", faults{Reply: 3}, request, sdk.ReasonUnreachable, true, "(3)", "network"},
		{"REP 4", faults{Reply: 4}, request, sdk.ReasonUnreachable, true, "(4)", "network"},
		{"REP 5", faults{Reply: 5, ShortReply: true}, request, sdk.ReasonRefused, true, "refused (5)", "listens"},
		{"REP 6", faults{Reply: 6}, request, sdk.ReasonUnreachable, true, "(6)", "network"},
		{"REP 7", faults{Reply: 7}, request, sdk.ReasonProtocol, false, "(7)", "may not speak WebSocks"},
		{"REP 8", faults{Reply: 8}, request, sdk.ReasonProtocol, false, "(8)", "name"},
		{"REP 0x5b", faults{Reply: 0x5b}, request, sdk.ReasonProtocol, false, "0x5b", "may not speak WebSocks"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := emulate(t, websocksemu.Options{Faults: tt.faults})
			e := refusedDial(t, towards(s))
			if e.Stage != tt.stage || e.Reason != tt.reason || e.Retryable != tt.retryable {
				t.Errorf("%s, %s, retryable %t; want %s, %s, %t", e.Stage, e.Reason, e.Retryable, tt.stage, tt.reason, tt.retryable)
			}
			has(t, "message", e.Message, tt.message)
			has(t, "hint", e.Hint, tt.hint)
			if len(e.Message) > 1000 {
				t.Errorf("a message of %d bytes", len(e.Message))
			}
		})
	}
}

// TestBreaks has the server hang, close and break off at each step.
func TestBreaks(t *testing.T) {
	for _, secure := range []bool{false, true} {
		for step, stage := range map[websocksemu.Step]sdk.Stage{
			websocksemu.Accepted:  sdk.StageHandshake,
			websocksemu.Requested: sdk.StageHandshake,
			websocksemu.Upgraded:  sdk.StageHandshake,
			websocksemu.Framed:    sdk.StageHandshake,
			websocksemu.Greeted:   sdk.StageRequest,
		} {
			for ending, reason := range map[websocksemu.Ending]sdk.Reason{
				websocksemu.Hang: sdk.ReasonTimeout, websocksemu.Close: sdk.ReasonProtocol, websocksemu.Reset: sdk.ReasonUnavailable,
			} {
				t.Run(fmt.Sprintf("secure %t, step %d, ending %d", secure, step, ending), func(t *testing.T) {
					t.Parallel()
					stage := stage
					s := emulate(t, websocksemu.Options{TLS: secure, Faults: websocksemu.Faults{StopAt: step, StopBy: ending}})
					v := towards(s)
					if ending == websocksemu.Hang {
						v["timeouts"] = values{"handshake": "1s"} // the steps before take their time on a busy machine
					}
					if step == websocksemu.Accepted && secure {
						stage = sdk.StageTLS
					}
					_, err := dial(t, v, websocksemu.EchoTarget)
					e := dialError(t, err)
					if ending == websocksemu.Reset && step == websocksemu.Accepted && e.Stage == sdk.StageConnect {
						return // the reset came before connect had returned
					}
					if e.Stage != stage || e.Reason != reason || !e.Retryable {
						t.Errorf("%s, %s, retryable %t, %q; want %s, %s, true", e.Stage, e.Reason, e.Retryable, e.Message, stage, reason)
					}
				})
			}
		}
	}
}

// TestShortFrame ends in the middle of the ten bytes.
func TestShortFrame(t *testing.T) {
	s := emulate(t, websocksemu.Options{Faults: websocksemu.Faults{Frame: []byte("\x88\x02\x03\xe8"), StopAt: websocksemu.Framed, StopBy: websocksemu.Close}})
	has(t, "message", refusedDial(t, towards(s)).Message, "4 of 10 bytes")
}

// TestSOCKSOfAnotherVersion answers the greeting in another protocol.
func TestSOCKSOfAnotherVersion(t *testing.T) {
	for _, answer := range []string{"\x04\x5a", "\x05\x00\x04\x5a", "\x05\x00\x05\x00\x00\x09"} {
		url := script(t, func(c net.Conn) {
			r := upgrade(t, c)
			_, _ = io.CopyN(io.Discard, r, int64(len(echoOpening)))
			_, _ = io.WriteString(c, frame+answer)
			_, _ = r.ReadByte()
		})
		if e := refusedDial(t, values{"url": url}); e.Reason != sdk.ReasonProtocol {
			t.Errorf("%q: %s", answer, e.Reason)
		}
	}
}

func TestConnectErrors(t *testing.T) {
	closed := listen(t)
	_ = closed.Close()
	e := refusedDial(t, values{"url": "ws://" + closed.Addr().String()})
	if e.Stage != sdk.StageConnect || e.Reason != sdk.ReasonRefused || !e.Retryable {
		t.Errorf("%+v", e)
	}
}

// TestTLSErrors names what is wrong with the certificate or the port.
func TestTLSErrors(t *testing.T) {
	secure := emulate(t, websocksemu.Options{TLS: true})
	plain := script(t, func(c net.Conn) {
		_, _ = c.Read(make([]byte, 4096))
		_, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n")
	})
	for name, tt := range map[string]struct {
		v    values
		hint string
	}{
		"unknown authority": {values{"url": secure.URL()}, "tls.ca_file"},
		"another name":      {towards(secure, values{"tls": values{"ca_file": secure.CAFile(), "server_name": "other.example"}}), "tls.server_name"},
		"no TLS there":      {values{"url": strings.Replace(plain, "ws://", "wss://", 1)}, "scheme"},
	} {
		t.Run(name, func(t *testing.T) {
			e := refusedDial(t, tt.v)
			if e.Stage != sdk.StageTLS || e.Retryable {
				t.Errorf("%s, retryable %t", e.Stage, e.Retryable)
			}
			has(t, "hint", e.Hint, tt.hint)
		})
	}
	mustDial(t, values{"url": secure.URL(), "tls": values{"insecure_skip_verify": true}}, websocksemu.EchoTarget)
	mustDial(t, values{"url": "wss://localhost:" + strings.Split(secure.Address(), ":")[1], "tls": values{"ca_file": secure.CAFile()}}, websocksemu.EchoTarget)
}

// TestServerWantsACertificate: with TLS 1.3 it says so instead of an answer to the upgrade.
func TestServerWantsACertificate(t *testing.T) {
	for version, want := range map[uint16]sdk.DialError{
		tls.VersionTLS12: {Stage: sdk.StageTLS, Reason: sdk.ReasonProtocol},
		tls.VersionTLS13: {Stage: sdk.StageHandshake, Reason: sdk.ReasonUnauthenticated},
	} {
		address, ca := nettest.WantsCertificate(t, version)
		e := refusedDial(t, values{"url": "wss://" + address, "tls": values{"ca_file": ca}})
		if e.Stage != want.Stage || e.Reason != want.Reason || !e.Retryable {
			t.Errorf("%s: %+v", tls.VersionName(version), e)
		}
		has(t, "hint", e.Hint, "tls.cert_file")
	}
}

// TestPlainToTLS is ws:// to a port that speaks TLS.
func TestPlainToTLS(t *testing.T) {
	s := emulate(t, websocksemu.Options{TLS: true})
	e := refusedDial(t, values{"url": "ws://" + s.Address()})
	if e.Stage != sdk.StageHandshake {
		t.Errorf("%+v", e)
	}
	has(t, "hint", e.Hint, "scheme")
}

// TestEchoedSecretsAreNotShown is a server that answers with the request, in
// some form and place.
func TestEchoedSecretsAreNotShown(t *testing.T) {
	const key = "api=key&of  0123456789"
	entities := strings.NewReplacer("&", "&amp;", "=", "&#61;", "+", "&#x2b;")
	for name, answer := range map[string]func(auth, key string) string{
		"the body": func(auth, key string) string { return "HTTP/1.1 404 Not Found\r\n\r\n" + auth + " " + key },
		"a page": func(auth, key string) string {
			return "HTTP/1.1 403 Forbidden\r\n\r\n<p>" + entities.Replace(auth+"</p><p>"+key)
		},
		"a page, cut": func(auth, key string) string {
			return "HTTP/1.1 403 Forbidden\r\n\r\n<!--" + strings.Repeat("x", maxBody-len("<!---->")-20) + "-->" + auth
		},
		"a page, cut elsewhere": func(auth, key string) string {
			return "HTTP/1.1 403 Forbidden\r\n\r\n<!--" + strings.Repeat("x", maxBody-len("<!---->")-12) + "-->" + key
		},
		"where it is shortened": func(auth, key string) string {
			return "HTTP/1.1 403 Forbidden\r\n\r\n" + strings.Repeat("x", maxExcerpt-20) + auth
		},
		"the reason phrase": func(auth, key string) string { return "HTTP/1.1 403 not with " + auth + " and " + key + "\r\n\r\n" },
		"a redirect": func(auth, key string) string {
			return "HTTP/1.1 302 Found\r\nLocation: /login?a=" + neturl.QueryEscape(auth) + "&k=" + neturl.QueryEscape(key) + "\r\n\r\n"
		},
		"what is not HTTP": func(auth, key string) string { return "no " + auth + "\r\n\r\n" },
		"a subprotocol": func(auth, key string) string {
			return "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ACCEPT\r\nSec-WebSocket-Protocol: " + auth + "\r\n\r\n"
		},
	} {
		t.Run(name, func(t *testing.T) {
			url := script(t, func(c net.Conn) {
				q, err := http.ReadRequest(bufio.NewReader(c))
				if err != nil {
					t.Errorf("read request: %v", err)
					return
				}
				text := answer(strings.TrimPrefix(q.Header.Get("Authorization"), "Basic "), q.Header.Get("X-Api-Key"))
				_, _ = io.WriteString(c, strings.Replace(text, "ACCEPT", wire.Accept(q.Header.Get("Sec-WebSocket-Key")), 1))
			})
			e := refusedDial(t, values{"url": url, "username": "alice", "password": "secret", "headers": values{"X-Api-Key": key}})
			has(t, "error", e.Error(), "[")
			for _, secret := range []string{"YWxpY2U6", "alice:", "api=key", "api%3Dkey"} {
				if strings.Contains(e.Error(), secret) {
					t.Errorf("error %q shows %q", e, secret)
				}
			}
		})
	}
}

func TestRetryAfter(t *testing.T) {
	s := emulate(t, websocksemu.Options{Faults: websocksemu.Faults{Status: 503, Headers: []string{"Retry-After: 5"}}})
	if e := refusedDial(t, towards(s)); e.RetryAfter != 5*time.Second {
		t.Errorf("retry after %s, want 5s", e.RetryAfter)
	}
}

func TestClockHint(t *testing.T) {
	now := time.Unix(1_700_000_000, 0) // Tue, 14 Nov 2023 22:13:20 GMT
	for date, want := range map[string]string{
		"Tue, 14 Nov 2023 22:13:20 GMT": "; it agrees with the server's",
		"Tue, 14 Nov 2023 22:10:20 GMT": "; it is 3m0s ahead of the server's",
		"Tue Nov 14 22:16:20 UTC 2023":  "; it is 3m0s behind the server's",
		"Tue Nov 14 22:16:20 CET 2023":  "",
		"":                              "",
	} {
		if got := clockHint(date, now); got != want {
			t.Errorf("clockHint(%q) = %q, want %q", date, got, want)
		}
	}
}
