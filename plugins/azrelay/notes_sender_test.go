package azrelay_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/tunneld/tunneld/internal/nettest"
	"github.com/tunneld/tunneld/plugins/azrelay"
	"github.com/tunneld/tunneld/plugins/azrelay/azrelayemu"
	"github.com/tunneld/tunneld/plugins/sdk"
	"github.com/tunneld/tunneld/plugins/sdk/sdktest"
)

// The tests of this file are named after the lines of the protocol's notes on
// the sender.

func TestTheAddressAndWhereTheTokenGoes(t *testing.T) {
	const token = "SharedAccessSignature sr=http%3A%2F%2Fmyrelay.servicebus.windows.net%2Fhc1%2F&sig=OktR8XmcVmSGXV5KRy1Uh7ojmCIE5Sma0bB5D3t8t%2F4%3D&se=1900000000&skn=send"
	for _, tt := range []struct {
		name       string
		over       map[string]any
		path       string
		app        string // what is before sb-hc-action
		host       string
		header     string
		queryToken string
	}{
		{"anonymous", nil, "/$hc/hc1", "", "127.0.0.1", "", ""},
		{"suffix and app=…", map[string]any{"hybrid_connection": "hc1/orders/7?app=shop&x=%2F"}, "/$hc/hc1/orders/7", "app=shop&x=%2F&", "127.0.0.1", "", ""},
		{"the header ServiceBusAuthorization", map[string]any{"token": token}, "/$hc/hc1", "", "127.0.0.1", token, ""},
		{"sb-hc-token in the query, URL-encoded", map[string]any{"token": token, "token_in": "query"}, "/$hc/hc1", "", "127.0.0.1", "", token},
		{"the namespace in Host", map[string]any{"namespace": "myrelay.servicebus.windows.net"}, "/$hc/hc1", "", "myrelay.servicebus.windows.net", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			requests := make(chan *http.Request, 1)
			endpoint := scripted(t, nil, func(p *peer) {
				requests <- p.req
				p.want(ws.OpClose)
				p.finish()
			})
			c := dial(t, upstream(t, plain(endpoint, tt.over)), "label")
			if err := c.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			readAll(t, c)
			req := <-requests
			query := req.URL.Query()
			if req.URL.Path != tt.path || !strings.HasPrefix(req.URL.RawQuery, tt.app+"sb-hc-action=connect&sb-hc-id=") || len(query.Get("sb-hc-id")) != 36 {
				t.Errorf("asked for %s", req.URL)
			}
			if req.Host != tt.host {
				t.Errorf("Host is %q, want %q", req.Host, tt.host)
			}
			if got := req.Header.Get("ServiceBusAuthorization"); got != tt.header {
				t.Errorf("ServiceBusAuthorization is %q", got)
			}
			if got := query.Get("sb-hc-token"); got != tt.queryToken {
				t.Errorf("sb-hc-token is %q", got)
			}
			if tt.queryToken != "" && !strings.Contains(req.URL.RawQuery, url.QueryEscape(token)) {
				t.Errorf("the query %q is not escaped", req.URL.RawQuery)
			}
		})
	}
}

// Further headers go with the upgrade, and the service passes them on. What a peer repeats
// of them is not shown.
func TestFurtherHeaders(t *testing.T) {
	headers := map[string]any{"User-Agent": "corp/1", "x-api-key": "k3y", "Authorization": "Bearer t0ken-of-the-gateway"}
	t.Run("sent", func(t *testing.T) {
		requests := make(chan *http.Request, 1)
		endpoint := scripted(t, nil, func(p *peer) {
			requests <- p.req
			p.want(ws.OpClose)
			p.finish()
		})
		c := dial(t, upstream(t, plain(endpoint, map[string]any{"headers": headers, "key_name": "send", "key": "k"})), "label")
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		readAll(t, c)
		got := (<-requests).Header
		for name, want := range headers {
			if got.Get(name) != want {
				t.Errorf("%s is %q", name, got.Get(name))
			}
		}
		if got.Get("ServiceBusAuthorization") == "" || got.Get("Sec-WebSocket-Key") == "" || got.Get("Upgrade") != "websocket" {
			t.Errorf("%v", got)
		}
	})
	t.Run("echoed", func(t *testing.T) {
		endpoint := echoing(t, func(r *http.Request) string {
			return r.Header.Get("Authorization") + " and " + r.Header.Get("X-Api-Key") + " of k3ys"
		})
		e := dialError(t, upstream(t, plain("ws://"+endpoint, map[string]any{"headers": headers})), "label")
		if !strings.Contains(e.Message, "[redacted] and [redacted] of k3ys") || strings.Contains(e.Error(), "t0ken") {
			t.Errorf("message %q", e.Message)
		}
	})
	// What a listener gets of them it may repeat in the reason of its Close frame.
	t.Run("repeated at the end", func(t *testing.T) {
		endpoint := scripted(t, nil, func(p *peer) {
			p.send(closeFrame(ws.StatusPolicyViolation, "not for "+p.req.Header.Get("Authorization")+" and "+p.req.Header.Get("ServiceBusAuthorization")))
			_ = p.conn.CloseWrite()
			p.drain()
		})
		over := map[string]any{"headers": headers, "key_name": "send", "key": "k"}
		c := dial(t, upstream(t, plain(endpoint, over)), "label")
		end := c.AwaitEnd(within(t))
		over["framing"], over["port_name"] = "azbridge", "p"
		for _, err := range []error{end, dialError(t, upstream(t, plain(endpoint, over)), "label")} {
			if err == nil || !strings.Contains(err.Error(), "not for [redacted] and [redacted]") || strings.Contains(err.Error(), "t0ken") {
				t.Errorf("%v", err)
			}
		}
	})
	t.Run("refused", func(t *testing.T) {
		for _, name := range []string{"Host", "upgrade", "Sec-WebSocket-Protocol", "servicebusauthorization"} {
			ds := sdktest.Start(t, azrelay.Plugin()).Validate(t, "bridge", plain("ws://127.0.0.1:1", map[string]any{"headers": map[string]any{name: "x"}}))
			if len(ds) != 1 || ds[0].Warning || !strings.Contains(ds[0].Summary, "belongs to the request itself") || ds[0].Path[1] != name {
				t.Errorf("%s: %+v", name, ds)
			}
		}
	})
}

func TestThe101ComesOnlyWhenAListenerHasAccepted(t *testing.T) {
	t.Run("no listener accepts in the dial's own time", func(t *testing.T) {
		s := startEmulator(t, azrelayemu.Options{Faults: azrelayemu.Faults{Hang: true}, HybridConnections: map[string]azrelayemu.HybridConnection{"hc1": {}}})
		e := dialError(t, upstream(t, body(t, s, map[string]any{"timeouts": map[string]any{"accept": "50ms"}})), "label")
		if e.Stage != sdk.StageHandshake || e.Reason != sdk.ReasonTimeout || !e.Retryable || !strings.Contains(e.Hint, "listener") {
			t.Errorf("%v, %v", e, e.Reason)
		}
	})
	t.Run("a listener that is connected and does not accept", func(t *testing.T) {
		s := startEmulator(t, azrelayemu.Options{AcceptTimeout: 50 * time.Millisecond, HybridConnections: map[string]azrelayemu.HybridConnection{"hc1": {}}})
		idle := listen(t, s, "hc1")
		defer idle.Close()
		e := dialError(t, upstream(t, body(t, s, nil)), "label")
		if e.Reason != sdk.ReasonTimeout || !e.Retryable || !strings.Contains(e.Message, "504") {
			t.Errorf("%v, %v", e, e.Reason)
		}
	})
}

func TestRefusals(t *testing.T) {
	serve := azrelayemu.Options{
		Forward:           []azrelayemu.Forward{{HybridConnection: "hc1", Target: nettest.Serve(t, nettest.Echo)}},
		HybridConnections: map[string]azrelayemu.HybridConnection{"lonely": {}},
	}
	expired := "SharedAccessSignature sr=http%3A%2F%2F127.0.0.1%2Fhc1%2F&sig=AAAA&se=1500000000&skn=send"
	for _, tt := range []struct {
		name      string
		over      map[string]any
		faults    azrelayemu.Faults
		now       time.Duration // the service's clock is that far ahead
		reason    sdk.Reason
		retryable bool
		message   string
		hint      string
	}{
		{name: "401 no token", over: map[string]any{"key_name": nil, "key": nil}, reason: sdk.ReasonUnauthenticated, message: "401 MissingToken", hint: "set key_name and key"},
		{name: "401 a gateway has dropped the header", faults: azrelayemu.Faults{Status: 401, Reason: "MissingToken: Relay security token is required."}, reason: sdk.ReasonUnauthenticated, message: "401 MissingToken", hint: `set token_in = "query"`},
		{name: "401 bad token", over: map[string]any{"key": "wrong"}, reason: sdk.ReasonUnauthenticated, message: "401 InvalidSignature", hint: "copy it whole"},
		{name: "401 unknown policy", over: map[string]any{"key_name": "nobody"}, reason: sdk.ReasonUnauthenticated, message: "401 InvalidSignature", hint: `"nobody"`},
		{name: "401 expired: this clock is behind", now: 2 * time.Hour, reason: sdk.ReasonUnauthenticated, message: "401 ExpiredToken", hint: "behind the service's"},
		{name: "401 ready-made and expired", over: map[string]any{"key_name": nil, "key": nil, "token": expired}, reason: sdk.ReasonUnauthenticated, message: "401", hint: "ready-made token"},
		{name: "407 of a proxy", faults: azrelayemu.Faults{Status: 407, Reason: "Proxy Authentication Required"}, reason: sdk.ReasonUnauthenticated, message: "407 Proxy", hint: "user and password in via"},
		{name: "401 InvalidAudience", over: map[string]any{"namespace": "other.example"}, faults: azrelayemu.Faults{Status: 401, Reason: "InvalidAudience: wrong"}, reason: sdk.ReasonUnauthenticated, message: "401 InvalidAudience", hint: "http://other.example/hc1/"},
		{name: "403 the key lacks Send", over: map[string]any{"key_name": "listen", "key": "bGlzdGVuZXIga2V5"}, reason: sdk.ReasonDenied, message: "403 'Send'", hint: "Send right"},
		{name: "404 Endpoint does not exist", over: map[string]any{"hybrid_connection": "nowhere"}, reason: sdk.ReasonNotFound, message: "404 Endpoint does not exist", hint: `path "nowhere"`},
		{name: "404 no listener", over: map[string]any{"hybrid_connection": "lonely"}, reason: sdk.ReasonUnavailable, retryable: true, message: "404 There are no listeners", hint: "no listener is connected"},
		{name: "404 of another kind", faults: azrelayemu.Faults{Status: 404, Reason: "Not Found"}, reason: sdk.ReasonNotFound, retryable: true, message: "404 Not Found", hint: "listener"},
		{name: "whatever the listener rejects with", faults: azrelayemu.Faults{Status: 418, Reason: "No tea today"}, reason: sdk.ReasonDenied, message: "418 No tea today", hint: "rejected"},
		{name: "throttled", faults: azrelayemu.Faults{Status: 429, Reason: "Slow down"}, reason: sdk.ReasonUnavailable, retryable: true, message: "429", hint: "throttled"},
		{name: "an error in the service", faults: azrelayemu.Faults{Status: 503, Reason: "Busy"}, reason: sdk.ReasonUnavailable, retryable: true, message: "503 Busy"},
		{name: "no relay at all", faults: azrelayemu.Faults{Status: 302, Reason: "Found"}, reason: sdk.ReasonProtocol, message: "302", hint: "not a relay"},
		{name: "a wrong Sec-WebSocket-Accept", faults: azrelayemu.Faults{BadAccept: true}, reason: sdk.ReasonProtocol, message: "websocket handshake", hint: "does not speak WebSocket"},
		{name: "an extension that nobody offered", faults: azrelayemu.Faults{Extension: true}, reason: sdk.ReasonProtocol, message: "websocket handshake", hint: "does not speak WebSocket"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := serve
			o.Faults = tt.faults
			o.Now = func() time.Time { return time.Now().Add(tt.now) }
			s := startEmulator(t, o)
			e := dialError(t, upstream(t, body(t, s, tt.over)), "label")
			if e.Stage != sdk.StageHandshake || e.Reason != tt.reason || e.Retryable != tt.retryable {
				t.Errorf("stage %v, reason %v, retryable %v", e.Stage, e.Reason, e.Retryable)
			}
			if !strings.Contains(e.Message, tt.message) || !strings.Contains(e.Hint, tt.hint) {
				t.Errorf("message %q\nhint %q", e.Message, e.Hint)
			}
			if strings.HasPrefix(tt.message, "4") && !strings.Contains(e.Message, "TrackingId:") {
				t.Errorf("no TrackingId in %q", e.Message)
			}
			for _, secret := range []string{"c2VuZGVyIGtleQ==", "sig="} {
				if strings.Contains(e.Message+e.Hint, secret) {
					t.Errorf("a secret in %q, %q", e.Message, e.Hint)
				}
			}
		})
	}
}

// A 401 without the service's text is of something in between, which may have dropped the
// header with the token.
func TestABare401SuggestsTheQuery(t *testing.T) {
	const hint = `drops the header ServiceBusAuthorization, set token_in = "query"`
	for name, tt := range map[string]struct {
		over   map[string]any
		reason string
		want   bool
	}{
		"key":                   {map[string]any{"key_name": "send", "key": "k"}, "Unauthorized", true},
		"token":                 {map[string]any{"token": "SharedAccessSignature sr=a&sig=AAAA&se=1900000000&skn=send"}, "", true},
		"in the query already":  {map[string]any{"key_name": "send", "key": "k", "token_in": "query"}, "Unauthorized", false},
		"no token at all":       {nil, "Unauthorized", false},
		"of the service itself": {map[string]any{"key_name": "send", "key": "k"}, "Unauthorized. TrackingId:7_G0", false},
	} {
		t.Run(name, func(t *testing.T) {
			gateway := nettest.Serve(t, func(c *net.TCPConn) {
				if _, err := http.ReadRequest(bufio.NewReader(c)); err != nil {
					t.Errorf("read request: %v", err)
				}
				_, _ = fmt.Fprintf(c, "HTTP/1.1 401 %s\r\nContent-Length: 0\r\n\r\n", tt.reason)
			})
			e := dialError(t, upstream(t, plain("ws://"+gateway, tt.over)), "label")
			if e.Reason != sdk.ReasonUnauthenticated || strings.Contains(e.Hint, hint) != tt.want {
				t.Errorf("%v, hint %q", e, e.Hint)
			}
			if of := strings.Contains(tt.reason, "TrackingId"); strings.Contains(e.Hint, "user and password in via") == of {
				t.Errorf("hint %q", e.Hint)
			}
		})
	}
}

// TestAnExpiredTokenIsAMatterOfAFreshOne has the service's clock jump past the
// token's end: the dial after the refused one signs anew and works.
func TestAnExpiredTokenIsAMatterOfAFreshOnePerDialNeverOfARestart(t *testing.T) {
	s := startEmulator(t, azrelayemu.Options{Forward: []azrelayemu.Forward{{HybridConnection: "hc1", Target: nettest.Serve(t, nettest.Echo)}}})
	u := upstream(t, body(t, s, nil))
	s.SetFaults(azrelayemu.Faults{Status: 401, Reason: "ExpiredToken: The token is expired"})
	if e := dialError(t, u, "label"); e.Reason != sdk.ReasonUnauthenticated {
		t.Fatal(e)
	}
	s.SetFaults(azrelayemu.Faults{})
	c := dial(t, u, "label")
	if _, err := io.WriteString(c, "works"); err != nil {
		t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got := readAll(t, c); got != "works" {
		t.Errorf("read %q", got)
	}
}

func TestStatusTellsTheCredentialsEnd(t *testing.T) {
	s := startEmulator(t, azrelayemu.Options{Forward: []azrelayemu.Forward{{HybridConnection: "hc1", Target: nettest.Serve(t, nettest.Echo)}}})
	u := upstream(t, body(t, s, map[string]any{"token_ttl": "2h"}))
	dial(t, u, "label")
	st := u.AwaitStatus(within(t), t, func(st sdk.Status) bool { return st.Health == sdk.HealthOK })
	if left := time.Until(st.CredentialExpires); left < time.Hour || left > 2*time.Hour {
		t.Errorf("the credential ends in %s", left)
	}
	s.SetFaults(azrelayemu.Faults{Status: 503, Reason: "Busy"})
	dialError(t, u, "label")
	u.AwaitStatus(within(t), t, func(st sdk.Status) bool {
		return st.Health == sdk.HealthFailing && strings.Contains(st.Message, "503")
	})
}

func TestNoServiceThere(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	_ = l.Close()
	e := dialError(t, upstream(t, plain("ws://"+address, nil)), "label")
	if e.Stage != sdk.StageConnect || e.Reason != sdk.ReasonRefused || !e.Retryable {
		t.Errorf("%v, %v", e, e.Reason)
	}
}

func TestTLSFailuresHaveTheirStage(t *testing.T) {
	s := startEmulator(t, azrelayemu.Options{TLS: true, HybridConnections: map[string]azrelayemu.HybridConnection{"hc1": {}}})
	e := dialError(t, upstream(t, body(t, s, map[string]any{"tls": nil})), "label")
	if e.Stage != sdk.StageTLS || !strings.Contains(e.Hint, "ca_file") {
		t.Errorf("%v, %v", e, e.Reason)
	}
}
