package sapsocks_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/tunneld/tunneld/plugins/sapsocks"
	"github.com/tunneld/tunneld/plugins/sapsocks/sapsocksemu"
	"github.com/tunneld/tunneld/plugins/sdk/sdktest"
)

// secret is in every configuration below that is wrong, and must be in no text.
const secret = "s3cr3t-that-nobody-may-see"

func TestSchema(t *testing.T) {
	sensitive := map[string]bool{}
	for _, a := range sdktest.Start(t, sapsocks.Plugin()).Schema().GetAttributes() {
		sensitive[a.GetName()] = a.GetSensitive()
		if a.GetDoc() == "" {
			t.Errorf("%s is not documented", a.GetName())
		}
	}
	for name, want := range map[string]bool{
		"vcap_services": true, "instance": false, "service_binding": false, "proxy": false,
		"token": true, "auth": false, "location_id": false,
	} {
		if got, ok := sensitive[name]; !ok || got != want {
			t.Errorf("%s: there %v, sensitive %v; want sensitive %v", name, ok, got, want)
		}
	}
}

// Every mistake that Validate knows, with where it is and what is said.
func TestDiagnostics(t *testing.T) {
	full := values{"clientid": "id", "clientsecret": secret, "token_service_url": "https://t.example",
		"onpremise_proxy_host": "proxy.internal", "onpremise_socks5_proxy_port": "20004"}
	with := func(name string, v any) values {
		c := values{}
		for k, v := range full {
			c[k] = v
		}
		if c[name] = v; v == nil {
			delete(c, name)
		}
		return c
	}
	good := values{"proxy": "p:1", "oauth": values{"token_url": "https://t.example", "client_id": "id", "client_secret": secret}}
	but := func(name string, v any) values {
		c := values{"proxy": good["proxy"], "oauth": good["oauth"]}
		if c[name] = v; v == nil {
			delete(c, name)
		}
		return c
	}
	two := vcapServices(entry("orders", full), entry("billing", full))
	tests := []struct {
		name   string
		values values
		want   []string // "path: text", each the beginning of one diagnostic
	}{
		{"nothing wrong", good, nil},
		{"nothing wrong: given token", values{"proxy": "p:1", "token": secret}, nil},
		{"nothing wrong: trusted", values{"proxy": "p:1", "auth": "none"}, nil},
		{"nothing wrong: IPv6 proxy", values{"proxy": "[::1]:20004", "token": secret}, nil},
		{"nothing wrong: binding", values{"vcap_services": vcapServices(entry("a", full))}, nil},
		{"nothing wrong: port as a number", values{"vcap_services": vcapServices(entry("a", with("onpremise_socks5_proxy_port", 20004)))}, nil},
		{"nothing wrong: no port means the default", values{"vcap_services": vcapServices(entry("a", with("onpremise_socks5_proxy_port", nil)))}, nil},
		{"nothing wrong: one of several", values{"vcap_services": two, "instance": "orders"}, nil},
		{"nothing wrong: by instance name", values{"vcap_services": two, "instance": "orders-instance"}, nil},
		{"nothing wrong: by id", values{"vcap_services": two, "instance": "guid-of-orders"}, nil},
		{"nothing wrong: location id of 189 bytes", values{"proxy": "p:1", "token": secret, "location_id": strings.Repeat("l", 189)}, nil},

		{"location id of 190 bytes", values{"proxy": "p:1", "token": secret, "location_id": strings.Repeat("l", 190)},
			[]string{`location_id: "location_id" is out of range`}},
		{"location id without authentication", values{"proxy": "p:1", "auth": "none", "location_id": "berlin"},
			[]string{"location_id: location_id cannot be sent without authentication"}},
		{"unknown auth", but("auth", "basic"), []string{`auth: Wrong value for "auth"`}},
		{"no proxy anywhere", but("proxy", nil), []string{"proxy: no proxy: proxy is not set, and the binding has none"}},
		{"no proxy in the binding", values{"vcap_services": vcapServices(entry("a", with("onpremise_proxy_host", nil)))}, []string{"proxy: no proxy"}},
		{"proxy without a port", but("proxy", "connectivityproxy.internal"), []string{"proxy: proxy is not host:port: missing port in address"}},
		{"proxy without a host", but("proxy", ":20004"), []string{`proxy: proxy is not host:port: no host`}},
		{"proxy's port", but("proxy", "p:65536"), []string{`proxy: proxy is not host:port: the port is not 1 to 65535`}},
		{"port 0", but("proxy", "p:0"), []string{`proxy: proxy is not host:port: the port is not 1 to 65535`}},
		{"binding's port", values{"vcap_services": vcapServices(entry("a", with("onpremise_socks5_proxy_port", "many")))},
			[]string{`vcap_services: binding "a": onpremise_socks5_proxy_port "many" is not a port from 1 to 65535`}},
		{"binding's port is a list", values{"vcap_services": vcapServices(entry("a", with("onpremise_socks5_proxy_port", []int{1})))},
			[]string{`vcap_services: the credentials of binding "a" cannot be read`}},
		{"binding's client id with a line break", values{"vcap_services": vcapServices(entry("a", with("clientid", "id\n")))},
			[]string{"vcap_services.clientid: vcap_services.clientid ends in a line break"}},
		{"binding's proxy with a control character", values{"vcap_services": vcapServices(entry("a", with("onpremise_proxy_host", "a\tb")))},
			[]string{"vcap_services.onpremise_proxy_host: vcap_services.onpremise_proxy_host contains a control character"}},
		{"warning: binding's client secret with a line break", values{"vcap_services": vcapServices(entry("a", with("clientsecret", secret+"\n")))},
			[]string{"vcap_services.clientsecret: vcap_services.clientsecret ends in a line break, which counts as part of it"}},
		{"several bindings and no instance", values{"vcap_services": two},
			[]string{`vcap_services: vcap_services has several bindings of the connectivity service: "orders", "billing"`}},
		{"unknown instance", values{"vcap_services": two, "instance": "sales"},
			[]string{`vcap_services: vcap_services has no connectivity or user-provided binding or instance "sales", only: "orders", "billing"`}},
		{"no connectivity", values{"vcap_services": `{"xsuaa":[{"name":"login"}]}`}, []string{`vcap_services: vcap_services has no binding of the connectivity service, only of: "xsuaa"`}},
		{"no connectivity, but instances of somebody", values{"vcap_services": userProvided("other", values{"uri": secret})},
			[]string{`vcap_services: vcap_services has no binding of the connectivity service, only of: "user-provided"`}},
		{"user-provided without credentials", values{"vcap_services": userProvided("other", values{"uri": secret}), "instance": "other"},
			[]string{`vcap_services: binding "other" holds no credentials for connectivity`}},
		{"unknown user-provided", values{"vcap_services": userProvided("other", full), "instance": "sales"},
			[]string{`vcap_services: vcap_services has no connectivity or user-provided binding or instance "sales", only: "other"`}},
		{"nothing wrong: user-provided", values{"vcap_services": userProvided("mine", full), "instance": "mine"}, nil},
		{"nothing wrong: user-provided, from cf service-key", values{"vcap_services": userProvided("mine", values{"credentials": full}), "instance": "mine"}, nil},
		{"nothing wrong: default-env.json", values{"vcap_services": `{"VCAP_SERVICES":` + vcapServices(entry("a", full)) + `,"VCAP_APPLICATION":{}}`}, nil},
		{"nothing wrong: default-env.json with a text", values{"vcap_services": `{"VCAP_SERVICES":` + strconv.Quote(vcapServices(entry("a", full))) + `}`}, nil},
		{"default-env.json, not bound", values{"vcap_services": `{"VCAP_SERVICES":{}}`}, []string{"vcap_services: vcap_services has no services: the application is bound to none"}},
		{"service key", values{"vcap_services": string(marshal(full))}, []string{"vcap_services: vcap_services holds credentials alone, as a service key does"}},
		{"service key, as cf service-key prints it", values{"vcap_services": string(marshal(values{"credentials": full}))}, []string{"vcap_services: vcap_services holds credentials alone, as a service key does"}},
		{"default-env.json, with null", values{"vcap_services": `{"VCAP_SERVICES":null}`}, []string{"vcap_services: vcap_services has no services: the application is bound to none"}},
		{"default-env.json, with an empty text", values{"vcap_services": `{"VCAP_SERVICES":""}`}, []string{"vcap_services: vcap_services has no services: the application is bound to none"}},
		{"not bound at all", values{"vcap_services": `{}`}, []string{"vcap_services: vcap_services has no services: the application is bound to none"}},
		{"empty", values{"vcap_services": ""}, []string{"vcap_services: vcap_services is empty"}},
		{"white space", values{"vcap_services": " \n"}, []string{"vcap_services: vcap_services is empty"}},
		{"path", values{"vcap_services": "/etc/cf-service-bindings/vcap_services"}, []string{"vcap_services: vcap_services is the path of a file, not what the file holds"}},
		{"no JSON", values{"vcap_services": secret}, []string{"vcap_services: vcap_services is not a JSON document of services: it is broken at byte 1"}},
		{"JSON cut short", values{"vcap_services": vcapServices(entry("a", full))[:99]}, []string{"vcap_services: vcap_services is not a JSON document of services: it is broken at byte 99"}},
		{"another kind of JSON", values{"vcap_services": `["` + secret + `"]`}, []string{"vcap_services: vcap_services is not a JSON document of services: it is of type array"}},
		{"instance without vcap_services", but("instance", "orders"), []string{`instance: "instance" without "vcap_services"`}},
		{"both kinds of binding", values{"vcap_services": vcapServices(entry("a", full)), "service_binding": "/nowhere"}, []string{`service_binding: Both "service_binding" and "vcap_services"`}},
		{"no such folder", values{"service_binding": "/nowhere"}, []string{"service_binding: the service binding cannot be read: open /nowhere"}},
		{"token and oauth", but("token", secret), []string{`token: Both "token" and "oauth"`}},
		{"no credentials", values{"proxy": "p:1"}, []string{": no credentials: none of token, oauth and a binding is set"}},
		{"oauth, but empty", but("oauth", values{}), []string{"oauth.token_url: no address of the token service", "oauth.client_id: no client id", "oauth.client_secret: no client secret and no certificate"}},
		{"token_url is no URL", but("oauth", values{"token_url": "t.example/" + secret, "client_id": "id", "client_secret": secret}), []string{"oauth.token_url: the token service's address is not a URL"}},
		{"token_url with a password", but("oauth", values{"token_url": "https://id:" + secret + "@t.example", "client_id": "id", "client_secret": secret}), []string{"oauth.token_url: the token service's address contains a user or password"}},
		{"token_url without TLS", but("oauth", values{"token_url": "http://t.example", "client_id": "id", "client_secret": secret}), []string{"oauth.token_url: the token service's address is not encrypted"}},
		{"secret and certificate", but("oauth", values{"token_url": "https://t.example", "client_id": "id", "client_secret": secret, "cert_file": "c", "key_file": "k"}), []string{"oauth.client_secret: both a client secret and a certificate"}},
		{"certificate without key", but("oauth", values{"token_url": "https://t.example", "client_id": "id", "cert_file": "c"}), []string{"oauth.cert_file: a certificate without its private key"}},
		{"key without certificate", but("oauth", values{"token_url": "https://t.example", "client_id": "id", "key_file": "k"}), []string{"oauth.key_file: a private key without its certificate"}},
		{"certificate that is not there", but("oauth", values{"token_url": "https://t.example", "client_id": "id", "cert_file": "/nowhere", "key_file": "/nowhere"}), []string{"oauth.cert_file: cannot use the client's certificate: open /nowhere"}},
		{"binding's certificate", values{"vcap_services": vcapServices(entry("a", values{"clientid": "id", "certificate": "PEM", "key": secret, "certurl": "https://t.example", "onpremise_proxy_host": "p"}))}, []string{": cannot use the client's certificate: tls:"}},
		{"token of a megabyte", values{"proxy": "p:1", "token": strings.Repeat("x", 1<<20+1)}, []string{"token: token is 1048577 bytes long"}},
		{"no time", but("timeouts", values{"connect": "0s", "handshake": "0s"}), []string{`timeouts.connect: "connect" is out of range`, `timeouts.handshake: "handshake" is out of range`}},
		{"tls", but("tls", values{"min_version": "1.0"}), []string{`tls.min_version: Wrong value for "min_version"`}},
		{"all at once", values{"auth": "basic", "instance": "x", "proxy": "p", "token": secret, "oauth": values{}},
			[]string{"instance: ", "token: Both", "auth: "}},
		{"warning: client secret with its file's line break", but("oauth", values{"token_url": "https://t.example", "client_id": "id", "client_secret": secret + "\n"}),
			[]string{"oauth.client_secret: oauth.client_secret ends in a line break"}},
		{"warning: token without authentication", values{"proxy": "p:1", "auth": "none", "token": secret}, []string{`token: auth = "none" sends no token: token has no effect`}},
		{"warning: oauth without authentication", but("auth", "none"), []string{`oauth: auth = "none" sends no token: oauth has no effect`}},
	}
	plugin := sdktest.Start(t, sapsocks.Plugin())
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := plugin.Validate(t, "onprem", tt.values)
			for i, d := range got {
				text := strings.Join(d.Path, ".") + ": " + d.Summary
				if i >= len(tt.want) || !strings.HasPrefix(text, tt.want[i]) {
					t.Errorf("unexpected: %s (%s)", text, d.Detail)
				}
				if d.Detail == "" {
					t.Errorf("%s: no next step", text)
				}
				if d.Warning != strings.HasPrefix(tt.name, "warning") {
					t.Errorf("%s: warning %v", text, d.Warning)
				}
				if strings.Contains(text+d.Detail, secret) {
					t.Errorf("the secret is shown: %s (%s)", text, d.Detail)
				}
			}
			if len(got) < len(tt.want) {
				t.Errorf("%d diagnostics, want %d: %q", len(got), len(tt.want), tt.want)
			}
		})
	}
}

// What is written out overrides the binding, value by value.
func TestOverrides(t *testing.T) {
	emu := emulate(t, sapsocksemu.Options{})
	wrong := vcapServices(entry("a", values{
		"clientid": "wrong", "clientsecret": "wrong", "token_service_url": "https://wrong.invalid",
		"onpremise_proxy_host": "wrong.invalid", "onpremise_socks5_proxy_port": "1",
	}))
	right := values{"token_url": emu.TokenService(), "client_id": emu.ClientID(), "client_secret": emu.ClientSecret()}
	reach(t, configure(t, values{"vcap_services": wrong, "proxy": emu.Proxy(), "oauth": right}), "echo.corp:7")
	reach(t, configure(t, values{"vcap_services": wrong, "proxy": emu.Proxy(), "token": emu.IssueToken(3600e9)}), "echo.corp:7")
	// A token_url that has a path is left alone.
	right["token_url"] = emu.TokenService() + "/oauth/token"
	reach(t, configure(t, values{"proxy": emu.Proxy(), "oauth": right}), "echo.corp:7")
	right["token_url"] = emu.TokenService() + "/elsewhere"
	fails(t, configure(t, values{"proxy": emu.Proxy(), "oauth": right}), "echo.corp:7", sapsocks.TokenRejected)
}

// Notes: "several bindings are possible, so one is picked by name".
func TestPickedBinding(t *testing.T) {
	emu := emulate(t, sapsocksemu.Options{})
	credentials := values{}
	for k, v := range emu.Credentials() {
		credentials[k] = v
	}
	// token_service_url is absent here: "url is its deprecated name".
	delete(credentials, "token_service_url")
	vcap := vcapServices(entry("other", values{"onpremise_proxy_host": "wrong.invalid", "clientid": "x", "clientsecret": "x", "url": "https://wrong.invalid"}), entry("mine", credentials))
	reach(t, configure(t, values{"vcap_services": vcap, "instance": "mine"}), "echo.corp:7")
	// Notes: "a `user-provided` service instance with the same credentials is common".
	reach(t, configure(t, values{"vcap_services": userProvided("mine", credentials), "instance": "mine"}), "echo.corp:7")
}

// No secret, token or credential comes out in a log at its most talkative, in an
// error or in a status, whatever goes wrong; not even where the far end repeats
// it.
func TestNoSecretIsShown(t *testing.T) {
	var log syncBuffer
	logger := slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	plugin := sdktest.StartWithLog(t, sapsocks.Plugin(), logger)
	emu := emulate(t, sapsocksemu.Options{ClientSecret: secret})
	jwt := emu.IssueToken(3600e9)
	var texts []string
	try := func(name string, v values, f sapsocksemu.Faults) {
		emu.SetFaults(f)
		u := plugin.Configure(t, name, v)
		c, err := u.Dial(within(t), "echo.corp:7")
		if err == nil {
			exchange(t, c, "hello")
		} else {
			texts = append(texts, fmt.Sprintf("%v %+v", err, err))
		}
		u.Release(t)
	}
	leak := func(status int, kind, body string) sapsocksemu.Faults {
		return sapsocksemu.Faults{Token: sapsocksemu.TokenFaults{Status: status, ContentType: kind, Body: body}}
	}
	try("good", bound(emu, nil), sapsocksemu.Faults{})
	try("refused", bound(emu, nil), sapsocksemu.Faults{AuthStatus: 1})
	try("repeats", bound(emu, nil), leak(401, "application/json", `{"error":"`+secret+`","error_description":"`+secret+` is wrong"}`))
	try("html", bound(emu, nil), leak(200, "text/html", "<html>"+secret))
	try("bare", bound(emu, nil), leak(200, "application/json", secret))
	try("form", bound(emu, nil), leak(200, "text/plain", "%zz"+secret))
	try("typed", bound(emu, nil), leak(200, "application/json", `{"access_token":{"`+secret+`":1}}`))
	try("server error", bound(emu, nil), leak(500, "text/plain", "error="+secret))
	try("redirect", bound(emu, nil), sapsocksemu.Faults{Token: sapsocksemu.TokenFaults{Redirect: "http://127.0.0.1:1/" + secret}})
	try("given", values{"proxy": emu.Proxy(), "token": jwt}, sapsocksemu.Faults{})
	try("given, refused", values{"proxy": emu.Proxy(), "token": jwt}, sapsocksemu.Faults{AuthStatus: 1})
	for _, said := range emu.Conversations() {
		if said.Token != "" && strings.Contains(log.String()+strings.Join(texts, "\n"), said.Token) {
			t.Error("a token is shown")
		}
	}
	for _, text := range append(texts, log.String()) {
		if strings.Contains(text, secret) || strings.Contains(text, jwt) {
			t.Errorf("a secret is shown: %s", text)
		}
	}
	if len(texts) != 9 {
		t.Errorf("%d dials failed, want 9: %q", len(texts), texts)
	}
}

// The README's table of errors is the code's.
func TestREADME(t *testing.T) {
	b, err := os.ReadFile(filepath.Join(".", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	readme := string(b)
	for _, section := range []string{"# sapsocks", "## What it is", "## Configuration", "## Cloud Foundry", "## Kubernetes", "## Errors and what to check", "## Limits"} {
		if !strings.Contains(readme, section+"\n") {
			t.Errorf("no section %q", section)
		}
	}
	// Notes, "Kafka and other protocols that advertise addresses": "The README
	// shows both."
	for _, way := range []string{`listener "socks5" "kafka"`, `listener "tcp" "broker2"`, "127.0.1.2 broker2.corp"} {
		if !strings.Contains(readme, way) {
			t.Errorf("nothing of %s", way)
		}
	}
	for _, f := range sapsocks.Failures() {
		row := fmt.Sprintf("| %s | %s |\n", plain(f.Message), plain(f.Hint))
		if !strings.Contains(readme, row) {
			t.Errorf("no row\n%s", row)
		}
	}
}

// plain writes a text of the table for a reader.
func plain(text string) string {
	return strings.NewReplacer("{target}", "*target*", "{proxy}", "*proxy*", "{location}", "*location*",
		"{token_url}", "*token_url*", "{detail}", "*…*").Replace(text)
}

// syncBuffer is a buffer that several goroutines write to.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
