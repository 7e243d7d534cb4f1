package config

import (
	"crypto/x509"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/nettest"
	"github.com/tunneld/tunneld/internal/tlsconf"
)

// TestListenersTLS: the block's own certificate comes first, then those of its blocks, and
// what is wrong with one is told at its place.
func TestListenersTLS(t *testing.T) {
	a := nettest.NewAuthority(t, "authority")
	cert, key := a.Files(t, &x509.Certificate{DNSNames: []string{"a.example"}})
	old, oldKey := a.Files(t, &x509.Certificate{DNSNames: []string{"b.example"}, NotAfter: time.Now().Add(-time.Minute)})
	ca := a.File(t)
	text := fmt.Sprintf(`listener "tcp" "l" {
  address = "127.0.0.1:1"
  target  = "a:1"
  tls {
    certificate {
      cert_file = %q
      key_file  = %q
    }
    cert_file      = %q
    key_file       = %q
    client_ca_file = %q
    allow_san      = ["*.corp", "spiffe://corp/*"]
    max_version    = "1.2"
    cipher_suites  = ["TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"]
    alpn           = ["h2"]
    half_close     = "fin"
  }
}
listener "http" "without" { address = "127.0.0.1:2" }
upstream "direct" "d" {
  tls {
    cert_file = %q
    key_file  = %q
  }
}
route "r" { upstreams = [upstream.direct.d] }
`, old, oldKey, cert, key, ca, old, oldKey)
	cfg, diags := parseText(t, text)
	got := cfg.Listeners[0].TLS
	want := &ListenerTLS{FIN: true, Server: tlsconf.ServerOptions{
		Pairs: []tlsconf.Pair{{CertFile: cert, KeyFile: key}, {CertFile: old, KeyFile: oldKey}}, ClientCAFile: ca,
		AllowSAN: []string{"*.corp", "spiffe://corp/*"}, MinVersion: "1.2", MaxVersion: "1.2",
		CipherSuites: []string{"TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"}, ALPN: []string{"h2"},
	}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if ends := got.Ends(); !ends.FIN || ends.Strict {
		t.Errorf("ends %+v", ends)
	}
	if ends := (ListenerTLS{}).Ends(); ends.FIN || !ends.Strict {
		t.Errorf("ends by default %+v", ends)
	}
	if cfg.Listeners[1].TLS != nil {
		t.Error("a listener without the block speaks TLS")
	}
	if len(diags) != 2 {
		t.Fatalf("%s", printed(t, diags))
	}
	for i, line := range []int{6, 22} {
		if d := diags[i]; !d.Warning || d.Line != line || !strings.HasPrefix(d.Summary, "The certificate has expired on 20") {
			t.Errorf("%+v", d)
		}
	}
	// A file that is not there may come; one of no use is an error of the configuration.
	if err := os.Remove(ca); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(key, []byte("no key"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, diags = parseText(t, text)
	if len(diags) != 4 || diags[1].Line != 9 || diags[1].Machine || diags[2].Line != 11 || !diags[2].Machine {
		t.Errorf("%s", printed(t, diags))
	}
}
