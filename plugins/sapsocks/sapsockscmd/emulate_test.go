package sapsockscmd

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tunneld/tunneld/internal/cmdtest"
	"github.com/tunneld/tunneld/internal/nettest"
	"github.com/tunneld/tunneld/plugins/sapsocks/sapsocksemu"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// credentials are what a client of the emulator reads in its binding.
type credentials struct {
	ClientID     string `json:"clientid"`
	ClientSecret string `json:"clientsecret"`
	TokenService string `json:"token_service_url"`
	Host         string `json:"onpremise_proxy_host"`
	Port         string `json:"onpremise_socks5_proxy_port"`
	Certificate  string `json:"certificate"`
	Key          string `json:"key"`
}

func (c credentials) proxy() string { return net.JoinHostPort(c.Host, c.Port) }

// any port, so that tests run beside each other.
var anywhere = []string{"--address", "127.0.0.1:0", "--token-address", "127.0.0.1:0"}

// emulate runs the command and returns its binding.
func emulate(t *testing.T, args ...string) (*cmdtest.Emulator, credentials) {
	t.Helper()
	e := cmdtest.Start(t, Emulate(), append(args, append(anywhere, "--print", "vcap")...)...)
	return e, read(t, []byte(e.Out))
}

func read(t *testing.T, vcap []byte) credentials {
	t.Helper()
	var services map[string][]struct{ Credentials credentials }
	if err := json.Unmarshal(vcap, &services); err != nil || len(services["connectivity"]) != 1 {
		t.Fatalf("%v: %s", err, vcap)
	}
	return services["connectivity"][0].Credentials
}

// fetch asks for a token as SAP's libraries do. The client's time is bounded.
func (c credentials) fetch(t *testing.T, client *http.Client, more ...string) (status int, header http.Header, body string, err error) {
	t.Helper()
	if client == nil {
		client = &http.Client{}
	}
	if client.Timeout == 0 {
		client.Timeout = cmdtest.Patience
	}
	if client.Transport == nil {
		client.Transport = &http.Transport{}
	}
	client.Transport.(*http.Transport).DisableKeepAlives = true
	form := url.Values{"grant_type": {"client_credentials"}, "client_id": {c.ClientID}}
	if c.ClientSecret != "" {
		form.Set("client_secret", c.ClientSecret)
	}
	path := "/oauth/token"
	if len(more) > 0 {
		path = "/oauth2/token"
		form.Set("resource", more[0])
	}
	resp, err := client.PostForm(c.TokenService+path, form)
	if err != nil {
		return 0, nil, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 4<<20))
	return resp.StatusCode, resp.Header, string(b), err
}

func (c credentials) token(t *testing.T) string {
	t.Helper()
	_, _, body, err := c.fetch(t, nil)
	var answer struct {
		Token string `json:"access_token"`
	}
	if err == nil {
		err = json.Unmarshal([]byte(body), &answer)
	}
	if err != nil || answer.Token == "" {
		t.Fatalf("%v: %s", err, body)
	}
	return answer.Token
}

func jwt(token, location string) string {
	n := len(token)
	return string([]byte{1, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}) + token + string([]byte{byte(len(location))}) + location
}

const (
	greeting = "\x05\x01\x80"
	chosen   = "\x05\x80"
	accepted = "\x01\x00"
	ask      = "\x05\x01\x00\x03\x07db.corp\x15\x38"
	success  = "\x05\x00\x00\x01\x7f\x00\x00\x01"
	echoed   = "hello"
)

// say holds a whole conversation with the echo service behind db.corp:5432.
func say(t *testing.T, c credentials, location string) {
	t.Helper()
	token := c.token(t)
	k := cmdtest.Dial(t, c.proxy())
	k.Say(greeting, chosen)
	k.Say(jwt(token, location), accepted)
	k.Say(ask, success)
	if _, err := io.ReadFull(k, make([]byte, 2)); err != nil { // the bound port
		t.Fatal(err)
	}
	k.Say(echoed, echoed)
}

func TestMap(t *testing.T) {
	echo := nettest.Serve(t, nettest.Echo)
	_, port, _ := net.SplitHostPort(echo)
	e, c := emulate(t, "--map", "db.corp:5432="+echo, "--map", "berlin/db.corp:5432=localhost:"+port)
	say(t, c, "")
	say(t, c, "YmVybGlu") // berlin
	k := cmdtest.Dial(t, c.proxy())
	k.Say(greeting, chosen)
	k.Say(jwt(c.token(t), "cGFyaXM="), accepted) // paris
	k.Say(ask, "\x05\x03")
	k = cmdtest.Dial(t, c.proxy())
	k.Say(greeting, chosen)
	k.Say(jwt(c.token(t), ""), accepted)
	k.Say("\x05\x01\x00\x03\x07no.corp\x15\x38", "\x05\x02")
	log := e.Stop(t)
	for _, want := range []string{"location=berlin target=db.corp:5432 backend=127.0.0.1:" + port, `answer="reply 03" location=paris`, "token granted"} {
		if !strings.Contains(log, want) {
			t.Errorf("%q is missing in %s", want, log)
		}
	}
	if strings.Contains(log, c.ClientSecret) {
		t.Errorf("logged %s", log)
	}
}

// Without a mapping there is a Cloud Connector nevertheless.
func TestNoMap(t *testing.T) {
	_, c := emulate(t)
	k := cmdtest.Dial(t, c.proxy())
	k.Say(greeting, chosen)
	k.Say(jwt(c.token(t), ""), accepted)
	k.Say(ask, "\x05\x02")
}

func TestTrusted(t *testing.T) {
	e := cmdtest.Start(t, Emulate(), append(anywhere, "--trusted", "--map", "db.corp:5432="+nettest.Serve(t, nettest.Echo))...)
	var proxy string
	if _, err := fmt.Sscanf(e.Out, "upstream \"sapsocks\" \"emulated\" {\n  proxy = %q\n  auth  = \"none\"\n}\n", &proxy); err != nil {
		t.Fatalf("%v: %s", err, e.Out)
	}
	k := cmdtest.Dial(t, proxy)
	k.Say("\x05\x01\x00", "\x05\x00")
	k.Say(ask, success)
}

// What was pasted yesterday fits today.
func TestFixedAddresses(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("a secret's\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	e, c := emulate(t, "--client-secret-file", secret, "--client-id", "sb-me!1|x!2")
	if c.ClientID != "sb-me!1|x!2" || c.ClientSecret != "a secret's" {
		t.Errorf("%+v", c)
	}
	e.Stop(t)
	again := cmdtest.Start(t, Emulate(), "--client-secret-file", secret, "--client-id", "sb-me!1|x!2",
		"--address", c.proxy(), "--token-address", strings.TrimPrefix(c.TokenService, "http://"), "--print", "vcap")
	if again.Out != e.Out {
		t.Errorf("%s, then %s", e.Out, again.Out)
	}
	cmdtest.Fails(t, Emulate(), c.proxy()+": bind: ", "--address", c.proxy(), "--token-address", "127.0.0.1:0")
	cmdtest.Fails(t, Emulate(), "choose another port", "--address", "127.0.0.1:0", "--token-address", strings.TrimPrefix(c.TokenService, "http://"))
}

func TestPrint(t *testing.T) {
	shell := cmdtest.Start(t, Emulate(), anywhere...)
	vcap, ok := strings.CutPrefix(shell.Out, "export VCAP_SERVICES='")
	if vcap, ok2 := strings.CutSuffix(vcap, "'\n"); !ok || !ok2 || read(t, []byte(vcap)).Host != "127.0.0.1" {
		t.Errorf("%s", shell.Out)
	}
	env := cmdtest.Start(t, Emulate(), append(anywhere, "--print", "default-env")...)
	var file map[string]json.RawMessage
	if err := json.Unmarshal([]byte(env.Out), &file); err != nil || read(t, file["VCAP_SERVICES"]).Host != "127.0.0.1" {
		t.Errorf("%v: %s", err, env.Out)
	}
	upstream := cmdtest.Start(t, Emulate(), append(anywhere, "--print", "upstream", "--grant", "ias", "--map", "berlin/db.corp:1=127.0.0.1:1")...)
	for _, want := range []string{"proxy       = ", "location_id = \"berlin\"\n", "resource      = \"urn:sap:", "client_secret = "} {
		if !strings.Contains(upstream.Out, want) {
			t.Errorf("%q is missing in %s", want, upstream.Out)
		}
	}
}

func TestServiceBinding(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "binding")
	e, c := emulate(t, "--service-binding", folder)
	if b, err := os.ReadFile(filepath.Join(folder, "clientsecret")); err != nil || string(b) != c.ClientSecret {
		t.Errorf("%q, %v", b, err)
	}
	e.Stop(t)
	// Another grant's leaves nothing of the first.
	_, c = emulate(t, "--service-binding", folder, "--grant", "x509", "--tls-ca-file", filepath.Join(t.TempDir(), "ca.pem"))
	if b, err := os.ReadFile(filepath.Join(folder, "certificate")); err != nil || string(b) != c.Certificate {
		t.Errorf("%q, %v", b, err)
	}
	if _, err := os.Stat(filepath.Join(folder, "clientsecret")); err == nil {
		t.Error("the secret of the first binding is still there")
	}
	// A folder of something else is left alone.
	for _, name := range []string{"notes.txt", "key"} {
		other := t.TempDir()
		if err := os.WriteFile(filepath.Join(other, name), []byte("mine"), 0o600); err != nil {
			t.Fatal(err)
		}
		cmdtest.Fails(t, Emulate(), "a folder of its own", append(anywhere, "--service-binding", other)...)
		if entries, err := os.ReadDir(other); err != nil || len(entries) != 1 {
			t.Errorf("%v, %v", entries, err)
		}
	}
}

func TestGrants(t *testing.T) {
	ca := filepath.Join(t.TempDir(), "ca.pem")
	trusting := func(t *testing.T) *tls.Config {
		t.Helper()
		b, err := os.ReadFile(ca)
		pool := x509.NewCertPool()
		if err != nil || !pool.AppendCertsFromPEM(b) {
			t.Fatalf("%v: %s", err, b)
		}
		return &tls.Config{RootCAs: pool}
	}
	t.Run("x509", func(t *testing.T) {
		_, c := emulate(t, "--grant", "x509", "--tls-ca-file", ca)
		pair, err := tls.X509KeyPair([]byte(c.Certificate), []byte(c.Key))
		if err != nil {
			t.Fatal(err)
		}
		config := trusting(t)
		config.Certificates = []tls.Certificate{pair}
		if status, _, body, err := c.fetch(t, &http.Client{Transport: &http.Transport{TLSClientConfig: config}}); status != 200 {
			t.Errorf("%d, %v: %s", status, err, body)
		}
	})
	t.Run("secret over TLS", func(t *testing.T) {
		_, c := emulate(t, "--tls-ca-file", ca)
		if status, _, body, err := c.fetch(t, &http.Client{Transport: &http.Transport{TLSClientConfig: trusting(t)}}); status != 200 {
			t.Errorf("%d, %v: %s", status, err, body)
		}
	})
	t.Run("ias", func(t *testing.T) {
		_, c := emulate(t, "--grant", "ias")
		if status, _, body, err := c.fetch(t, nil, sapsocksemu.Resource); status != 200 {
			t.Errorf("%d, %v: %s", status, err, body)
		}
	})
	t.Run("tokens", func(t *testing.T) {
		_, c := emulate(t, "--token-life", "90s", "--token-size", "20000")
		if _, _, body, err := c.fetch(t, nil); err != nil || !strings.Contains(body, `"expires_in":90`) || len(body) < 20000 {
			t.Errorf("%v: %.300s", err, body)
		}
	})
}

func TestUsage(t *testing.T) {
	for _, tt := range []struct {
		want string
		args []string
	}{
		{"give --tls-ca-file", []string{"--grant", "x509"}},
		{"such a client has no secret", []string{"--grant", "x509", "--tls-ca-file", "x", "--client-secret-file", "x"}},
		{"not one of ias, secret, x509", []string{"--grant", "jwt"}},
		{"at least 1s", []string{"--token-life", "0s"}},
		{`--map: "db.corp" is not host:port`, []string{"--map", "db.corp=127.0.0.1:1"}},
		{"port from 1 to 65535", []string{"--map", "db.corp:1=127.0.0.1:0"}},
		{"no binding", []string{"--trusted", "--print", "vcap"}},
		{"--fault-bound", []string{"--fault-bound", "x"}},
		{"from 0 to 1048576", []string{"--token-size", "-4"}},
		{"from 200 to 599", []string{"--fault-token-status", "1000"}},
		{"--fault-close-at or --fault-reset-at", []string{"--fault-close-at", "request", "--fault-reset-at", "greeting"}},
		{"this machine alone", []string{"--address", "0.0.0.0:0"}},
		{"this machine alone", []string{"--token-address", "0.0.0.0:0"}},
	} {
		args := append(append([]string{}, anywhere...), tt.args...)
		cmdtest.Fails(t, Emulate(), tt.want, args...)
	}
}

// TestProxyFaults: each, as a client sees it.
func TestProxyFaults(t *testing.T) {
	talker := nettest.Serve(t, func(c *net.TCPConn) {
		_, _ = io.WriteString(c, "hi")
		_, _ = io.Copy(io.Discard, c)
	})
	type step [2]string // what is said, and the answer
	login := step{"jwt", accepted}
	for _, tt := range []struct {
		args  string
		steps []step
		end   string
	}{
		{"--fault-silent-at greeting", []step{{greeting, ""}}, cmdtest.Silent},
		{"--fault-silent-at authentication", []step{{greeting, chosen}, {"jwt", ""}}, cmdtest.Silent},
		{"--fault-close-at request", []step{{greeting, chosen}, login, {ask, ""}}, cmdtest.Closed},
		{"--fault-reset-at request", []step{{greeting, chosen}, login, {ask, ""}}, cmdtest.Reset},
		{"--fault-garbage-at greeting", []step{{greeting, "HTTP/1.1 400 Bad Request"}}, ""},
		{"--fault-byte-at-a-time", []step{{greeting, chosen}, login, {ask, success}}, ""},
		{"--fault-method ff", []step{{greeting, "\x05\xff"}}, cmdtest.Closed},
		{"--fault-method 00", []step{{greeting, "\x05\x00"}}, cmdtest.Closed},
		{"--fault-auth-status 07", []step{{greeting, chosen}, {"jwt", "\x01\x07"}}, cmdtest.Closed},
		{"--fault-auth-status 01 --fault-refuse-by-reply", []step{{greeting, chosen}, login, {ask, "\x05\x05\x00\x01\x00\x00\x00\x00\x00\x00"}}, cmdtest.Closed},
		{"--fault-reply 04", []step{{greeting, chosen}, login, {ask, "\x05\x04\x00\x01\x00\x00\x00\x00\x00\x00"}}, cmdtest.Closed},
		{"--fault-reply 02 --fault-short-reply", []step{{greeting, chosen}, login, {ask, "\x05\x02"}}, cmdtest.Closed},
		{"--fault-reply 02 --fault-half-reply", []step{{greeting, chosen}, login, {ask, "\x05\x02"}}, cmdtest.Silent},
		{"--fault-bound db.corp:1", []step{{greeting, chosen}, login, {ask, "\x05\x00\x00\x03\x07db.corp\x00\x01hi"}}, cmdtest.Silent},
		{"--fault-bound 0.0.0.0:0 --fault-with-data", []step{{greeting, chosen}, login, {ask, "\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00hi"}}, cmdtest.Silent},
	} {
		t.Run(tt.args, func(t *testing.T) {
			e, c := emulate(t, append(strings.Fields(tt.args), "--map", "db.corp:5432="+talker)...)
			token := c.token(t)
			k := cmdtest.Dial(t, c.proxy())
			for _, s := range tt.steps {
				if s[0] == "jwt" {
					s[0] = jwt(token, "")
				}
				k.Say(s[0], s[1])
			}
			if tt.end != "" {
				k.Ends(tt.end)
			}
			if log := e.Stop(t); strings.Contains(tt.args, "-at ") && tt.end != cmdtest.Silent && !strings.Contains(log, "msg=fault") {
				t.Errorf("logged %s", log)
			}
		})
	}
}

func TestFaultDelay(t *testing.T) {
	_, c := emulate(t, "--fault-delay", "20ms")
	begin := time.Now()
	cmdtest.Dial(t, c.proxy()).Say(greeting, chosen)
	if took := time.Since(begin); took < 20*time.Millisecond {
		t.Errorf("it took %s", took)
	}
}

// TestTokenFaults: each, as a client sees it.
func TestTokenFaults(t *testing.T) {
	for _, tt := range []struct {
		args   []string
		status int
		body   string // in it
		header [2]string
		fails  string
	}{
		{args: []string{"--fault-token-status", "503", "--fault-token-body", "<html>", "--fault-token-content-type", "text/x", "--fault-token-retry-after", "7"}, status: 503, body: "<html>", header: [2]string{"Content-Type", "text/x"}},
		{args: []string{"--fault-token-status", "429", "--fault-token-retry-after", "7"}, status: 429, header: [2]string{"Retry-After", "7"}},
		{args: []string{"--fault-token-body", "not a token"}, status: 200, body: "not a token", header: [2]string{"Content-Type", "text/html"}},
		{args: []string{"--fault-token-redirect", "http://127.0.0.1:1/x"}, status: 307, header: [2]string{"Location", "http://127.0.0.1:1/x"}},
		{args: []string{"--fault-token-silent"}, fails: "deadline"},
		{args: []string{"--fault-token-huge"}, status: 200, body: strings.Repeat("x", 1<<20)},
		{args: []string{"--fault-token-break-off"}, fails: "unexpected EOF"},
		{args: []string{"--fault-token-born-expired"}, status: 200, body: `"expires_in":-1`},
	} {
		t.Run(fmt.Sprint(tt.args), func(t *testing.T) {
			e, c := emulate(t, tt.args...)
			defer func() {
				if log := e.Stop(t); tt.fails != "deadline" && tt.args[0] != "--fault-token-born-expired" && !strings.Contains(log, "msg=fault") {
					t.Errorf("logged %s", log)
				}
			}()
			client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
			if tt.fails == "deadline" {
				client.Timeout = 50 * time.Millisecond
			}
			status, header, body, err := c.fetch(t, client)
			if tt.fails != "" {
				if err == nil || !strings.Contains(err.Error(), tt.fails) {
					t.Errorf("%v", err)
				}
				return
			}
			if err != nil || status != tt.status || !strings.Contains(body, tt.body) || header.Get(tt.header[0]) != tt.header[1] && tt.header[0] != "" {
				t.Errorf("%d, %v, %v: %.200s", status, err, header, body)
			}
		})
	}
	_, c := emulate(t, "--fault-token-no-expiry", "--fault-token-delay", "20ms")
	begin := time.Now()
	if _, _, body, err := c.fetch(t, nil); err != nil || strings.Contains(body, "expires_in") || time.Since(begin) < 20*time.Millisecond {
		t.Errorf("%v after %s: %s", err, time.Since(begin), body)
	}
}

// Every option of the emulator, and every fault, has a flag.
func TestEveryOption(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	e, cmd := newEmulation()
	cmdtest.Start(t, cmd, "--address", "127.0.0.1:0", "--token-address", "127.0.0.1:0", "--trusted", "--map", "a:1=b:1",
		"--tls-ca-file", filepath.Join(t.TempDir(), "ca.pem"), "--client-id", "x", "--client-secret-file", secret, "--token-size", "1",
		"--fault-silent-at", "greeting", "--fault-reset-at", "request", "--fault-garbage-at", "authentication", "--fault-delay", "1s",
		"--fault-byte-at-a-time", "--fault-method", "ff", "--fault-auth-status", "01", "--fault-refuse-by-reply", "--fault-reply", "01",
		"--fault-short-reply", "--fault-half-reply", "--fault-bound", "a:1", "--fault-with-data",
		"--fault-token-silent", "--fault-token-delay", "1s", "--fault-token-status", "500", "--fault-token-body", "x",
		"--fault-token-retry-after", "1", "--fault-token-redirect", "x", "--fault-token-huge", "--fault-token-break-off",
		"--fault-token-no-expiry", "--fault-token-born-expired")
	if unset := cmdtest.Unset(e.options); len(unset) > 0 {
		t.Errorf("no flag sets %v", unset)
	}
}
