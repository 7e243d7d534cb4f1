package sapsocks

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tunneld/tunneld/plugins/sdk"
)

// The token service's address, from a binding or written out. Notes: "A token for
// another subscriber tenant replaces the identity zone (subdomain) in the URL."
func TestTokenURL(t *testing.T) {
	for _, tt := range []struct{ binding, written, resource, want string }{
		{"https://t.example", "", "", "https://t.example/oauth/token"},
		{"https://t.example/", "", "", "https://t.example/oauth/token"},
		{"https://t.example/uaa", "", "", "https://t.example/uaa/oauth/token"},
		{"https://t.example/oauth/token", "", "", "https://t.example/oauth/token"},
		{"https://t.example/oauth/token/", "", "", "https://t.example/oauth/token"},
		{"https://t.example", "", "urn:x", "https://t.example/oauth2/token"},
		{"https://t.example/oauth2/token", "", "urn:x", "https://t.example/oauth2/token"},
		{"", "https://t.example", "", "https://t.example/oauth/token"},
		{"", "https://t.example/my/tokens", "", "https://t.example/my/tokens"},
		{"", "https://t.example/my/tokens?tenant=a", "", "https://t.example/my/tokens?tenant=a"},
		{"", "http://localhost:8080", "", "http://localhost:8080/oauth/token"},
		{"", "http://[::1]:8080", "", "http://[::1]:8080/oauth/token"},
		{"https://provider.authentication.example", "https://subscriber.authentication.example", "", "https://subscriber.authentication.example/oauth/token"},
	} {
		c := &Config{Auth: "jwt", Proxy: "p:1", OAuth: &OAuth{TokenURL: tt.written, Resource: tt.resource, ClientID: "id", ClientSecret: sdk.NewSecret("x")}}
		s, problems := c.merge(binding{tokenURL: tt.binding}, true)
		if len(problems) != 0 || s.service.url != tt.want {
			t.Errorf("binding %q, written %q: %q, %v; want %q", tt.binding, tt.written, s.service.url, problems, tt.want)
		}
	}
}

// A client's certificate that has expired is told when the configuration is
// read, as a warning: the binding may be rotated at any time.
func TestExpiredCertificate(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(-time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	b := binding{
		host: "p", port: "1", tokenURL: "https://t.example", clientID: "id",
		certificate: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		key:         sdk.NewSecret(string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}))),
	}
	_, problems := (&Config{Auth: "jwt"}).merge(b, true)
	if len(problems) != 1 || !problems[0].Warning || !strings.Contains(problems[0].Summary, "has expired on ") {
		t.Errorf("%+v", problems)
	}
}

// A folder that is rotated while it is read gives one binding or the other, and
// never the id of one with the secret of the other.
func TestBindingIsOfOneMoment(t *testing.T) {
	folder := t.TempDir()
	version := func(n int) string {
		name := filepath.Join(folder, "..v"+strconv.Itoa(n))
		if err := os.Mkdir(name, 0o700); err != nil {
			t.Error(err)
		}
		for _, file := range []string{"clientid", "clientsecret"} {
			if err := os.WriteFile(filepath.Join(name, file), []byte(strconv.Itoa(n)), 0o600); err != nil {
				t.Error(err)
			}
		}
		return name
	}
	swap := func(n int) {
		name := version(n)
		tmp := filepath.Join(folder, "..tmp")
		if err := errors.Join(os.Symlink(filepath.Base(name), tmp), os.Rename(tmp, filepath.Join(folder, "..data"))); err != nil {
			t.Error(err)
		}
		_ = os.RemoveAll(filepath.Join(folder, "..v"+strconv.Itoa(n-1)))
	}
	swap(1)
	for _, file := range []string{"clientid", "clientsecret"} {
		if err := os.Symlink(filepath.Join("..data", file), filepath.Join(folder, file)); err != nil {
			t.Fatal(err)
		}
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for n := 2; ; n++ {
			select {
			case <-stop:
				return
			default:
				swap(n)
			}
		}
	})
	good := 0
	for range 300 {
		b, err := readBinding(folder)
		switch {
		case err == nil && b.clientID != b.clientSecret.Reveal():
			t.Errorf("id of %s, secret of %s", b.clientID, b.clientSecret.Reveal())
		case err == nil:
			good++
		case !errors.Is(err, errRotated) && !errors.Is(err, os.ErrNotExist):
			t.Errorf("%v", err)
		}
	}
	close(stop)
	wg.Wait()
	if b, err := readBinding(folder); err != nil || b.clientID != b.clientSecret.Reveal() {
		t.Errorf("at rest: %+v, %v", b, err)
	}
	t.Logf("%d of 300 reads between rotations", good)
}

// Notes: "onpremise_socks5_proxy_port (a string, "20004" by default)".
func TestPortOfTheBinding(t *testing.T) {
	for written, want := range map[string]string{"": "p:20004", "443": "p:443"} {
		credentials := map[string]any{"clientid": "id", "clientsecret": "x", "token_service_url": "https://t.example", "onpremise_proxy_host": "p"}
		if written != "" {
			credentials["onpremise_socks5_proxy_port"] = written
		}
		vcap, err := json.Marshal(map[string]any{"connectivity": []any{map[string]any{"name": "a", "credentials": credentials}}})
		if err != nil {
			t.Fatal(err)
		}
		c := &Config{Auth: "jwt", VCAPServices: sdk.NewSecret(string(vcap))}
		s, err := c.settings()
		if err != nil || s.proxy != want {
			t.Errorf("port %q: proxy %q, %v; want %q", written, s.proxy, err, want)
		}
	}
}
