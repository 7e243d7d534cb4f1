package sapsocksemu

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

func TestTokenService(t *testing.T) {
	s := startT(t, Options{TokenLife: 43199 * time.Second})
	ias := startT(t, Options{Grant: GrantIAS})
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience10}
	good := url.Values{"grant_type": {"client_credentials"}, "client_id": {s.ClientID()}, "client_secret": {s.ClientSecret()}}
	with := func(base url.Values, name, value string) url.Values {
		v := url.Values{}
		for k := range base {
			v.Set(k, base.Get(k))
		}
		v.Set(name, value)
		return v
	}
	goodIAS := with(with(good, "client_secret", ias.ClientSecret()), "resource", "urn:sap:identity:application:service:id:"+InstanceGUID)
	for name, tt := range map[string]struct {
		url    string
		form   url.Values
		status int
	}{
		"good":             {s.TokenService() + "/oauth/token", good, 200},
		"wrong secret":     {s.TokenService() + "/oauth/token", with(good, "client_secret", "x"), 401},
		"wrong client":     {s.TokenService() + "/oauth/token", with(good, "client_id", "x"), 401},
		"wrong grant":      {s.TokenService() + "/oauth/token", with(good, "grant_type", "password"), 400},
		"wrong path":       {s.TokenService() + "/oauth/token/oauth/token", good, 404},
		"IAS":              {ias.TokenService() + "/oauth2/token", goodIAS, 200},
		"IAS, no resource": {ias.TokenService() + "/oauth2/token", with(goodIAS, "resource", ""), 400},
		"IAS, UAA's path":  {ias.TokenService() + "/oauth/token", goodIAS, 404},
	} {
		t.Run(name, func(t *testing.T) {
			resp, err := client.PostForm(tt.url, tt.form)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			var answer struct {
				Token     string `json:"access_token"`
				ExpiresIn int    `json:"expires_in"`
			}
			if resp.StatusCode != tt.status {
				t.Fatalf("status %d, want %d", resp.StatusCode, tt.status)
			}
			if tt.status != 200 {
				return
			}
			if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil || answer.Token == "" || answer.ExpiresIn == 0 {
				t.Errorf("%+v, %v", answer, err)
			}
		})
	}
}

// Clients prove themselves in the form, by HTTP Basic (RFC 6749, 2.3.1) or in the query
// of a GET.
func TestClientAuthentication(t *testing.T) {
	const id, secret = "sb-app!b42|connectivity!b7", "a+b c%2F$"
	var log bytes.Buffer
	s := startT(t, Options{ClientID: id, ClientSecret: secret, Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	grant := url.Values{"grant_type": {"client_credentials"}}
	login := url.Values{"grant_type": {"client_credentials"}, "client_id": {id}, "client_secret": {secret}}
	wrong := url.Values{"grant_type": {"client_credentials"}, "client_id": {id}, "client_secret": {"x"}}
	type basic = [2]string
	for _, tt := range []struct {
		name        string
		method      string
		query, form url.Values
		basic       basic
		status      int
	}{
		{"the form", "POST", nil, login, basic{}, 200},
		{"the query of a GET", "GET", login, nil, basic{}, 200},
		{"the query of a POST", "POST", login, nil, basic{}, 400},
		{"Basic, encoded as RFC 6749 has it", "POST", nil, grant, basic{url.QueryEscape(id), url.QueryEscape(secret)}, 200},
		{"Basic, as it is", "POST", nil, grant, basic{id, secret}, 200},
		{"Basic and GET", "GET", grant, nil, basic{id, secret}, 200},
		{"Basic with the id in the form", "POST", nil, url.Values{"grant_type": {"client_credentials"}, "client_id": {id}}, basic{id, secret}, 200},
		{"a wrong secret in the query", "GET", wrong, nil, basic{}, 401},
		{"a wrong secret by Basic", "POST", nil, grant, basic{id, "x"}, 401},
		{"a wrong id by Basic", "POST", nil, grant, basic{"x", secret}, 401},
		{"a wrong secret by Basic, the right one in the form", "POST", nil, login, basic{id, "x"}, 401},
		{"the form is encoded once", "POST", nil, url.Values{"grant_type": {"client_credentials"}, "client_id": {id}, "client_secret": {url.QueryEscape(secret)}}, basic{}, 401},
		{"nothing", "POST", nil, grant, basic{}, 401},
		{"another method", "PUT", nil, login, basic{}, 405},
	} {
		t.Run(tt.name, func(t *testing.T) {
			q, err := http.NewRequestWithContext(t.Context(), tt.method, s.TokenService()+"/oauth/token?"+tt.query.Encode(), strings.NewReader(tt.form.Encode()))
			if err != nil {
				t.Fatal(err)
			}
			q.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			if tt.basic != (basic{}) {
				q.SetBasicAuth(tt.basic[0], tt.basic[1])
			}
			client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience10}
			resp, err := client.Do(q)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if resp.StatusCode != tt.status {
				t.Errorf("status %d, want %d", resp.StatusCode, tt.status)
			}
			if challenge := resp.Header.Get("WWW-Authenticate"); (challenge != "") != (tt.status == 401 && tt.basic != basic{}) {
				t.Errorf("challenge %q", challenge)
			}
		})
	}
	if err := s.Close(); err != nil { // what is logged is logged by then
		t.Fatal(err)
	}
	if said := log.String(); strings.Contains(said, secret) || strings.Contains(said, url.QueryEscape(secret)) || !strings.Contains(said, `by="HTTP Basic"`) {
		t.Errorf("logged %s", said)
	}
}

func TestTokenServiceOverTLS(t *testing.T) {
	s := startT(t, Options{TLS: true})
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(s.Authority())) {
		t.Fatal("no authority")
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: pool}}, Timeout: patience10}
	resp, err := client.PostForm(s.TokenService()+"/oauth/token", url.Values{"grant_type": {"client_credentials"}, "client_id": {s.ClientID()}, "client_secret": {s.ClientSecret()}})
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK || !strings.HasPrefix(s.Credentials()["token_service_url"], "https://") || s.Credentials()["clientsecret"] == "" {
		t.Errorf("%s, %v", resp.Status, s.Credentials())
	}
}
