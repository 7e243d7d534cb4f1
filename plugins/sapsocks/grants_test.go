package sapsocks_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tunneld/tunneld/plugins/sapsocks"
	"github.com/tunneld/tunneld/plugins/sapsocks/sapsocksemu"
	"github.com/tunneld/tunneld/plugins/sdk"
	"github.com/tunneld/tunneld/plugins/sdk/sdktest"
)

// trust is the tls block that trusts the emulator's token service.
func trust(t *testing.T, emu *sapsocksemu.Server) values {
	t.Helper()
	file := filepath.Join(t.TempDir(), "ca.pem")
	write(t, file, emu.Authority())
	return values{"ca_file": file}
}

// Notes: "X.509: the same request over mTLS to {certurl}/oauth/token, with no
// secret."
func TestX509(t *testing.T) {
	emu := emulate(t, sapsocksemu.Options{Grant: sapsocksemu.GrantX509})
	credentials := values{}
	for name, text := range emu.Credentials() {
		credentials[name] = text
	}
	// Only certurl may be used, and a secret that is left over must not be sent.
	credentials["token_service_url"] = "https://wrong.invalid"
	credentials["clientsecret"] = "left over"
	vcap := vcapServices(entry("a", credentials))

	t.Run("binding", func(t *testing.T) {
		reach(t, configure(t, values{"vcap_services": vcap, "tls": trust(t, emu)}), "echo.corp:7")
	})
	t.Run("service binding on Kubernetes", func(t *testing.T) {
		folder := t.TempDir()
		mount(t, folder, emu.Credentials())
		reach(t, configure(t, values{"service_binding": folder, "tls": trust(t, emu)}), "echo.corp:7")
	})
	t.Run("certurl that ends in /oauth/token", func(t *testing.T) {
		whole := values{}
		for name, v := range credentials {
			whole[name] = v
		}
		whole["certurl"] = emu.TokenService() + "/oauth/token"
		reach(t, configure(t, values{"vcap_services": vcapServices(entry("a", whole)), "tls": trust(t, emu)}), "echo.corp:7")
	})
	t.Run("written out", func(t *testing.T) {
		certFile, keyFile := keyPair(t, emu)
		reach(t, configure(t, values{"proxy": emu.Proxy(), "tls": trust(t, emu), "oauth": values{
			"token_url": emu.TokenService(), "client_id": emu.ClientID(), "cert_file": certFile, "key_file": keyFile}}), "echo.corp:7")
	})
	t.Run("files are followed", func(t *testing.T) {
		other := emulate(t, sapsocksemu.Options{Grant: sapsocksemu.GrantX509})
		certFile, keyFile := keyPair(t, other)
		u := configure(t, values{"proxy": emu.Proxy(), "tls": trust(t, emu), "oauth": values{
			"token_url": emu.TokenService(), "client_id": emu.ClientID(), "cert_file": certFile, "key_file": keyFile}})
		fails(t, u, "echo.corp:7", sapsocks.TokenRefused)
		write(t, certFile, emu.Credentials()["certificate"])
		write(t, keyFile, emu.Credentials()["key"])
		for ctx := within(t); ; {
			c, err := u.Dial(ctx, "echo.corp:7")
			if err == nil {
				exchange(t, c, "hello")
				break
			}
			isKind(t, err, sapsocks.TokenRefused) // as long as it is the old one
		}
	})
	t.Run("the token service is not trusted", func(t *testing.T) {
		e := fails(t, configure(t, values{"vcap_services": vcap}), "echo.corp:7", sapsocks.TokenUnreachable)
		if e.Retryable || !strings.Contains(e.Hint, "tls.ca_file") {
			t.Errorf("%+v", e)
		}
	})
}

// keyPair writes the emulator's client certificate to files.
func keyPair(t *testing.T, emu *sapsocksemu.Server) (certFile, keyFile string) {
	t.Helper()
	folder := t.TempDir()
	certFile, keyFile = filepath.Join(folder, "cert.pem"), filepath.Join(folder, "key.pem")
	write(t, certFile, emu.Credentials()["certificate"])
	write(t, keyFile, emu.Credentials()["key"])
	return certFile, keyFile
}

// Files that go away between two tokens leave what they held in use.
func TestCertificateGone(t *testing.T) {
	emu := emulate(t, sapsocksemu.Options{Grant: sapsocksemu.GrantX509})
	certFile, keyFile := keyPair(t, emu)
	u := configure(t, values{"proxy": emu.Proxy(), "tls": trust(t, emu), "oauth": values{
		"token_url": emu.TokenService(), "client_id": emu.ClientID(), "cert_file": certFile, "key_file": keyFile}})
	reach(t, u, "echo.corp:7")
	if err := os.Remove(keyFile); err != nil {
		t.Fatal(err)
	}
	u.AwaitFileProblem(within(t), t, keyFile)
	issued := emu.TokensIssued()
	emu.RevokeTokens()
	reach(t, u, "echo.corp:7")
	if emu.TokensIssued() == issued {
		t.Error("no token was asked for")
	}
}

// Notes: "IAS: POST {url}/oauth2/token with
// resource=urn:sap:identity:application:service:id:<instance_guid>."
func TestIAS(t *testing.T) {
	emu := emulate(t, sapsocksemu.Options{Grant: sapsocksemu.GrantIAS})
	resource := "urn:sap:identity:application:service:id:" + sapsocksemu.InstanceGUID
	reach(t, configure(t, bound(emu, values{"oauth": values{"resource": resource}})), "echo.corp:7")
	reach(t, configure(t, values{"proxy": emu.Proxy(), "oauth": values{
		"token_url": emu.TokenService() + "/oauth2/token", "client_id": emu.ClientID(), "client_secret": emu.ClientSecret(), "resource": resource}}), "echo.corp:7")
	e := fails(t, configure(t, bound(emu, values{"oauth": values{"resource": resource + "x"}})), "echo.corp:7", sapsocks.TokenRejected)
	if !strings.Contains(e.Message, "invalid_target") || !strings.Contains(e.Hint, "resource") {
		t.Errorf("%q (%q)", e.Message, e.Hint)
	}
}

// The status tells when the credential ends and, after a renewal in the
// background, that it was renewed.
func TestStatusTellsRenewal(t *testing.T) {
	emu := emulate(t, sapsocksemu.Options{TokenLife: 5 * time.Second})
	u := configure(t, bound(emu, nil))
	first := u.AwaitStatus(within(t), t, func(st sdk.Status) bool { return !st.CredentialRenewed.IsZero() })
	again := u.AwaitStatus(within(t), t, func(st sdk.Status) bool { return st.CredentialRenewed.After(first.CredentialRenewed) })
	if !again.CredentialExpires.After(first.CredentialExpires) || again.CredentialRenewed.After(first.CredentialExpires) || again.Health != sdk.HealthOK {
		t.Errorf("first %+v, then %+v; want it renewed before its end", first, again)
	}
}

// A given token is opaque: nothing is told of its end.
func TestStatusOfAGivenToken(t *testing.T) {
	emu := emulate(t, sapsocksemu.Options{})
	u := configure(t, values{"proxy": emu.Proxy(), "token": emu.IssueToken(time.Hour)})
	reach(t, u, "echo.corp:7")
	st := u.AwaitStatus(within(t), t, func(st sdk.Status) bool { return st.Health == sdk.HealthOK })
	if !st.CredentialExpires.IsZero() || !st.CredentialRenewed.IsZero() {
		t.Errorf("%+v", st)
	}
}

// A reload that leaves an upstream alone keeps its token.
func TestTokenOutlivesAReload(t *testing.T) {
	emu := emulate(t, sapsocksemu.Options{})
	plugin := sdktest.Start(t, sapsocks.Plugin())
	v := bound(emu, nil)
	old := plugin.Configure(t, "onprem", v)
	reach(t, old, "echo.corp:7")
	fresh := plugin.Configure(t, "onprem", v)
	old.Release(t)
	reach(t, fresh, "echo.corp:7")
	if n := emu.TokensIssued(); n != 1 {
		t.Errorf("%d tokens, want 1", n)
	}
}
