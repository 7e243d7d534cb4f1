package sapsocks_test

import (
	"encoding/json"
	"html"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/socks5"
	"github.com/tunneld/tunneld/plugins/sapsocks"
	"github.com/tunneld/tunneld/plugins/sapsocks/sapsocksemu"
	"github.com/tunneld/tunneld/plugins/sdk"
)

// service is a token service that answers with f after it has checked nothing.
func service(t *testing.T, f http.HandlerFunc) string {
	s := httptest.NewServer(f)
	t.Cleanup(s.Close)
	return s.URL
}

// Notes: "POST {token_service_url}/oauth/token, form
// grant_type=client_credentials&client_id&client_secret", "Some bindings already
// end in /oauth/token: do not append it twice. Client ids contain ! and |."
func TestTokenRequest(t *testing.T) {
	const id = "sb-tunnel!b42|connectivity!b7"
	for _, path := range []string{"", "/", "/oauth/token", "/oauth/token/"} {
		t.Run("token_service_url ends in "+path, func(t *testing.T) {
			type request struct {
				method, path, kind string
				form               url.Values
			}
			seen := make(chan request, 8)
			base := service(t, func(w http.ResponseWriter, r *http.Request) {
				_ = r.ParseForm()
				seen <- request{r.Method, r.URL.Path, r.Header.Get("Content-Type"), r.PostForm}
				w.Header().Set("Content-Type", "application/json")
				_, _ = w.Write([]byte(`{"access_token":"jwt","token_type":"bearer","expires_in":43199}`))
			})
			address, errs := script(t, false, turn{greeting, "\x05\x80"}, turn{auth("jwt", ""), "\x01\x00"}, turn{askEcho, ok})
			host, port, _ := strings.Cut(address, ":")
			vcap := vcapServices(entry("conn", values{
				"clientid": id, "clientsecret": "s3cr3t", "token_service_url": base + path,
				"onpremise_proxy_host": host, "onpremise_socks5_proxy_port": port,
			}))
			u := configure(t, values{"vcap_services": vcap})
			reach(t, u, "echo.corp:7")
			if err := <-errs; err != nil {
				t.Error(err)
			}
			r := <-seen
			want := url.Values{"grant_type": {"client_credentials"}, "client_id": {id}, "client_secret": {"s3cr3t"}}
			if r.method != "POST" || r.path != "/oauth/token" || r.kind != "application/x-www-form-urlencoded" || r.form.Encode() != want.Encode() {
				t.Errorf("%+v, want a POST to /oauth/token with %v", r, want)
			}
		})
	}
}

// Notes: "An authentication status other than 00, or REP 05, with a cached token
// drops that token and tries once with a fresh one; no other refusal does."
// TestHostOfTokenRequests: the dot of an absolute name is the resolver's alone.
func TestHostOfTokenRequests(t *testing.T) {
	hosts := make(chan string, 8)
	base := service(t, func(w http.ResponseWriter, r *http.Request) {
		hosts <- r.Host
		http.Error(w, "", http.StatusForbidden)
	})
	u := configure(t, values{"proxy": "127.0.0.1:1", "via": base, "oauth": values{"token_url": "http://localhost.:81", "client_id": "c", "client_secret": "s3cr3t"}})
	fails(t, u, "echo.corp:7", sapsocks.TokenRefused)
	if got := <-hosts; got != "localhost:81" {
		t.Errorf("Host %q", got)
	}
}

func TestRetryWithAFreshToken(t *testing.T) {
	for name, byReply := range map[string]bool{"status": false, "REP 05": true} {
		t.Run(name, func(t *testing.T) {
			emu := emulate(t, sapsocksemu.Options{Faults: sapsocksemu.Faults{RefuseByReply: byReply}})
			u := configure(t, bound(emu, nil))
			reach(t, u, "echo.corp:7")
			emu.RevokeTokens()
			reach(t, u, "echo.corp:7")
			said := emu.Conversations()
			if n := emu.TokensIssued(); n != 2 || len(said) != 3 {
				t.Fatalf("%d tokens and %d conversations, want 2 and 3", n, len(said))
			}
			if said[0].Token != said[1].Token || said[1].Token == said[2].Token {
				t.Error("the third conversation should be the first with a fresh token")
			}
		})
	}
}

func TestRetryOnlyOnce(t *testing.T) {
	for name, f := range map[string]sapsocksemu.Faults{
		"status": {AuthStatus: 1},
		"REP 05": {AuthStatus: 1, RefuseByReply: true},
	} {
		t.Run(name, func(t *testing.T) {
			emu := emulate(t, sapsocksemu.Options{})
			u := configure(t, bound(emu, nil))
			reach(t, u, "echo.corp:7")
			emu.SetFaults(f)
			kind := sapsocks.AuthRefused
			if f.RefuseByReply {
				kind = sapsocks.ReplyAuthRefused
			}
			fails(t, u, "echo.corp:7", kind)
			if n, said := emu.TokensIssued(), len(emu.Conversations()); n != 2 || said != 3 {
				t.Errorf("%d tokens and %d conversations, want 2 and 3", n, said)
			}
			// The second token was refused as well, so this dial fetches one.
			// It was not at hand, so there is no second try.
			fails(t, u, "echo.corp:7", kind)
			if n, said := emu.TokensIssued(), len(emu.Conversations()); n != 3 || said != 4 {
				t.Errorf("%d tokens and %d conversations, want 3 and 4", n, said)
			}
			emu.SetFaults(sapsocksemu.Faults{})
			reach(t, u, "echo.corp:7")
		})
	}
}

func TestOtherRefusalsKeepTheToken(t *testing.T) {
	emu := emulate(t, sapsocksemu.Options{})
	u := configure(t, bound(emu, nil))
	reach(t, u, "echo.corp:7")
	before := len(emu.Conversations())
	for code := socks5.AddressTypeNotSupported; code > socks5.Succeeded; code-- {
		if code == socks5.ConnectionRefused {
			continue
		}
		emu.SetFaults(sapsocksemu.Faults{Reply: byte(code)})
		fails(t, u, "echo.corp:7", sapsocks.Reply(byte(code)))
	}
	if n, said := emu.TokensIssued(), len(emu.Conversations())-before; n != 1 || said != 7 {
		t.Errorf("%d tokens and %d conversations, want 1 and 7", n, said)
	}
}

// A given token cannot be renewed: no second try.
func TestGivenTokenRefused(t *testing.T) {
	emu := emulate(t, sapsocksemu.Options{})
	reach(t, configure(t, values{"proxy": emu.Proxy(), "token": emu.IssueToken(time.Hour)}), "echo.corp:7")
	u := configure(t, values{"proxy": emu.Proxy(), "token": emu.IssueToken(-time.Second)})
	before := len(emu.Conversations())
	fails(t, u, "echo.corp:7", sapsocks.AuthRefused)
	if n := len(emu.Conversations()) - before; n != 1 {
		t.Errorf("%d tries, want 1", n)
	}
}

// Each failure of the token service, and that the next dial recovers from it.
func TestTokenServiceFaults(t *testing.T) {
	short := values{"timeouts": values{"connect": "100ms", "handshake": "100ms"}}
	html := "<html><body>Please log on</body></html>"
	tests := []struct {
		name   string
		faults sapsocksemu.TokenFaults
		values values
		kind   sapsocks.Kind
		says   string
	}{
		{"401", sapsocksemu.TokenFaults{Status: 401, Body: `{"error":"unauthorized","error_description":"Bad credentials"}`}, nil, sapsocks.TokenRefused, "HTTP status 401, unauthorized (Bad credentials)"},
		{"401 without a body", sapsocksemu.TokenFaults{Status: 401}, nil, sapsocks.TokenRefused, "HTTP status 401"},
		{"400 invalid_client", sapsocksemu.TokenFaults{Status: 400, Body: `{"error":"invalid_client"}`}, nil, sapsocks.TokenRefused, "invalid_client"},
		{"400", sapsocksemu.TokenFaults{Status: 400, Body: `{"error":"invalid_request"}`}, nil, sapsocks.TokenRejected, "HTTP status 400, invalid_request"},
		{"404", sapsocksemu.TokenFaults{Status: 404, Body: html}, nil, sapsocks.TokenRejected, "HTTP status 404"},
		{"500", sapsocksemu.TokenFaults{Status: 500, Body: html}, nil, sapsocks.TokenUnavailable, "HTTP status 500"},
		{"503 with Retry-After", sapsocksemu.TokenFaults{Status: 503, RetryAfter: "7"}, nil, sapsocks.TokenUnavailable, "HTTP status 503"},
		{"429", sapsocksemu.TokenFaults{Status: 429}, nil, sapsocks.TokenUnavailable, "HTTP status 429"},
		{"a redirect is not followed", sapsocksemu.TokenFaults{Redirect: "http://127.0.0.1:1/elsewhere"}, nil, sapsocks.TokenRedirected, "HTTP status 307"},
		{"HTML with status 200", sapsocksemu.TokenFaults{Status: 200, Body: html, ContentType: "text/html"}, nil, sapsocks.TokenUnreadable, ""},
		{"JSON of another kind", sapsocksemu.TokenFaults{Status: 200, Body: `["token"]`, ContentType: "application/json"}, nil, sapsocks.TokenUnreadable, ""},
		{"no token in it", sapsocksemu.TokenFaults{Status: 200, Body: `{"token":"x"}`, ContentType: "application/json"}, nil, sapsocks.TokenUnreadable, ""},
		{"huge", sapsocksemu.TokenFaults{Huge: true}, nil, sapsocks.TokenUnreadable, ""},
		{"breaks off", sapsocksemu.TokenFaults{BreakOff: true}, nil, sapsocks.TokenUnavailable, "its answer breaks off: unexpected EOF"},
		{"silent", sapsocksemu.TokenFaults{Silent: true}, short, sapsocks.TokenUnreachable, ""},
		{"too slow", sapsocksemu.TokenFaults{Delay: patience}, short, sapsocks.TokenUnreachable, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			emu := emulate(t, sapsocksemu.Options{Faults: sapsocksemu.Faults{Token: tt.faults}})
			u := configure(t, bound(emu, tt.values))
			e := fails(t, u, "echo.corp:7", tt.kind)
			if !strings.Contains(e.Message, tt.says) || !strings.Contains(e.Message, emu.TokenService()+"/oauth/token") {
				t.Errorf("%q does not say %q and where", e.Message, tt.says)
			}
			if tt.faults.RetryAfter != "" && e.RetryAfter != 7*time.Second {
				t.Errorf("retry after %s, want 7s", e.RetryAfter)
			}
			if len(e.Message) > 500 || strings.Contains(e.Message, "log on") {
				t.Errorf("too much of the answer is told: %q", e.Message)
			}
			if len(emu.Conversations()) != 0 {
				t.Error("the proxy was asked without a token")
			}
			if tt.values == nil { // else there is too little time for a good dial
				emu.SetFaults(sapsocksemu.Faults{})
				reach(t, u, "echo.corp:7")
			}
		})
	}
}

// A token service may repeat what it was sent, in any form.
func TestTheClientSecretIsNotRepeated(t *testing.T) {
	const secret = "s3cr&t/+w=rd"
	for name, echo := range map[string]string{
		"as it is":         secret,
		"as a form has it": url.QueryEscape(secret),
		"in HTML":          html.EscapeString(secret),
		"where it is cut":  strings.Repeat("x", 195) + secret,
	} {
		t.Run(name, func(t *testing.T) {
			body, err := json.Marshal(map[string]string{"error": "invalid_client", "error_description": echo})
			if err != nil {
				t.Fatal(err)
			}
			emu := emulate(t, sapsocksemu.Options{Faults: sapsocksemu.Faults{Token: sapsocksemu.TokenFaults{Status: 401, Body: string(body)}}})
			u := configure(t, bound(emu, values{"oauth": values{"client_secret": secret}}))
			if e := fails(t, u, "echo.corp:7", sapsocks.TokenRefused); strings.Contains(e.Error(), "s3cr") || !strings.Contains(e.Message, "invalid_client") {
				t.Errorf("told %q", e)
			}
		})
	}
}

// Notes: "A 401 from the token service is a distinct error from a refused SOCKS
// authentication."
func TestRefusalsAreDistinct(t *testing.T) {
	emu := emulate(t, sapsocksemu.Options{})
	wrong := configure(t, bound(emu, values{"oauth": values{"client_secret": "wrong"}}))
	service := fails(t, wrong, "echo.corp:7", sapsocks.TokenRefused)
	proxy := fails(t, configure(t, values{"proxy": emu.Proxy(), "token": "forged"}), "echo.corp:7", sapsocks.AuthRefused)
	if service.Stage == proxy.Stage || service.Message == proxy.Message || service.Hint == proxy.Hint {
		t.Errorf("not told apart: %v; %v", service, proxy)
	}
}

func TestTokenServiceUnreachable(t *testing.T) {
	emu := emulate(t, sapsocksemu.Options{})
	e := fails(t, configure(t, bound(emu, values{"oauth": values{"token_url": "http://127.0.0.1:1"}})), "echo.corp:7", sapsocks.TokenUnreachable)
	if e.Reason != sdk.ReasonRefused || !e.Retryable {
		t.Errorf("%s, %v", e.Reason, e.Retryable)
	}
}

// The query of a token service's address is neither told of the address nor by a
// service that repeats it.
func TestTokenURLIsRedacted(t *testing.T) {
	emu := emulate(t, sapsocksemu.Options{})
	const secret = "qu3ry-s3cret"
	repeats := service(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusBadRequest)
		_ = json.NewEncoder(w).Encode(map[string]string{
			"error": "invalid_request", "error_description": "no key " + r.URL.Query().Get("key") + " at http://" + r.Host + r.URL.String(),
		})
	})
	for base, kind := range map[string]sapsocks.Kind{"http://127.0.0.1:1": sapsocks.TokenUnreachable, repeats: sapsocks.TokenRejected} {
		u := configure(t, bound(emu, values{"oauth": values{"token_url": base + "/token?key=" + secret}}))
		e := fails(t, u, "echo.corp:7", kind)
		if told := e.Error(); strings.Contains(told, secret) || !strings.Contains(told, base+"/token?[redacted]") {
			t.Errorf("told %q", told)
		}
		st := u.AwaitStatus(within(t), t, func(st sdk.Status) bool { return st.Health == sdk.HealthFailing })
		if strings.Contains(st.Message, secret) {
			t.Errorf("status %q", st.Message)
		}
	}
}

// The state of an upstream: healthy once a token is there, with its end; failing
// with the reason; and again healthy.
func TestStatus(t *testing.T) {
	emu := emulate(t, sapsocksemu.Options{TokenLife: 30 * time.Minute})
	before := time.Now().Add(-time.Second)
	u := configure(t, bound(emu, nil))
	st := u.AwaitStatus(within(t), t, func(st sdk.Status) bool { return st.Health == sdk.HealthOK })
	if life := time.Until(st.CredentialExpires); life > 30*time.Minute || life < 29*time.Minute || st.CredentialRenewed.Before(before) {
		t.Errorf("expires in %s, renewed %s", life, st.CredentialRenewed)
	}
	emu.SetFaults(sapsocksemu.Faults{Reply: 3})
	fails(t, u, "echo.corp:7", sapsocks.ReplyNoConnector)
	st = u.AwaitStatus(within(t), t, func(st sdk.Status) bool { return st.Health == sdk.HealthFailing })
	if !strings.Contains(st.Message, "the Cloud Connector is not connected") || st.CredentialExpires.IsZero() {
		t.Errorf("%+v", st)
	}
	emu.SetFaults(sapsocksemu.Faults{})
	reach(t, u, "echo.corp:7")
	u.AwaitStatus(within(t), t, func(st sdk.Status) bool { return st.Health == sdk.HealthOK && st.Message == "" })
	// What concerns one target says nothing of the upstream.
	fails(t, u, "unknown.corp:7", sapsocks.ReplyNoMapping)
	u.AwaitStatus(within(t), t, func(st sdk.Status) bool { return st.Health == sdk.HealthOK })
}

// Wrong credentials show before anybody dials.
func TestStatusOfWrongCredentials(t *testing.T) {
	emu := emulate(t, sapsocksemu.Options{})
	u := configure(t, bound(emu, values{"oauth": values{"client_secret": "wrong"}}))
	st := u.AwaitStatus(within(t), t, func(st sdk.Status) bool { return st.Health == sdk.HealthFailing })
	if !strings.Contains(st.Message, "refuses the client") || !st.CredentialExpires.IsZero() {
		t.Errorf("%+v", st)
	}
}
