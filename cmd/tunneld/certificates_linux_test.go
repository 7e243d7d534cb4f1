package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tunneld/tunneld/core/status"
	"github.com/tunneld/tunneld/plugins/sapsocks/sapsocksemu"
)

// TestClientCertificateIsRotated without a reload, through a daemon, its plugin and a
// token service that wants a certificate: a new one is used, and a broken one is told
// of, and the one before stays.
func TestClientCertificateIsRotated(t *testing.T) {
	s, other := startSapsocks(t, sapsocksemu.Options{Grant: sapsocksemu.GrantX509}), startSapsocks(t, sapsocksemu.Options{Grant: sapsocksemu.GrantX509})
	dir := t.TempDir()
	put := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
		return path
	}
	cert, key := put("cert.pem", other.emu.Credentials()["certificate"]), put("key.pem", other.emu.Credentials()["key"])
	d := startDaemon(t, withMetrics+fmt.Sprintf(`
upstream "sapsocks" "onprem" {
  proxy = %q
  oauth {
    token_url = %q
    client_id = %q
    cert_file = %q
    key_file  = %q
  }
  tls {
    ca_file = %q
  }
}
`, s.emu.Proxy(), s.emu.TokenService()+"/oauth/token", s.emu.ClientID(), cert, key, put("ca.pem", s.emu.Authority()))+
		listener("l", "127.0.0.1:0", "db.corp:5432", "")+route("r", "", "upstream.sapsocks.onprem"))
	upstream := func() status.Upstream { return d.Status().Upstreams[0] }

	d.dialReset(t, "tcp.l")
	put("cert.pem", s.emu.Credentials()["certificate"])
	put("key.pem", s.emu.Credentials()["key"])
	eventually(t, "the new certificate was not used", func() bool { return s.emu.TokensIssued() > 0 })
	pingPong(t, d.dial(t, "tcp.l"), "with the new one")
	eventually(t, "no certificate in the status", func() bool { return len(upstream().Certificates) == 1 })
	if c := upstream().Certificates[0]; c.File != cert || c.NotAfter.IsZero() || upstream().FileProblem != "" {
		t.Errorf("status %+v", upstream())
	}

	put("cert.pem", "-----BEGIN CERTIFICATE-----\n")
	eventually(t, "the broken file is not in the status", func() bool { return strings.Contains(upstream().FileProblem, cert) })
	warning := d.log.Await(t, 1, "level", "WARN", "upstream", "onprem", "msg", "a file of the tls block has changed and cannot be used: the old content stays in use")[0]
	if err := fmt.Sprint(warning["err"]); !strings.Contains(err, "cert_file") || !strings.Contains(err, cert) {
		t.Errorf("warning %v", warning)
	}
	if _, page := d.served(t, "/metrics"); !strings.Contains(page, `tunneld_upstream_file_problem{upstream="sapsocks.onprem"} 1`) ||
		!strings.Contains(page, `tunneld_upstream_certificate_expires_timestamp_seconds{upstream="sapsocks.onprem"}`) {
		t.Errorf("metrics:\n%s", page)
	}
	issued := s.emu.TokensIssued()
	s.emu.RevokeTokens()
	pingPong(t, d.dial(t, "tcp.l"), "with the one before")
	if s.emu.TokensIssued() == issued {
		t.Error("no token was asked for")
	}
	if n := d.Status().Reloads; n != 0 {
		t.Errorf("%d reloads", n)
	}
}
