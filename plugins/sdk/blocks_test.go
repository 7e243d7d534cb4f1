package sdk

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// selfSigned makes a certificate for localhost that is its own authority.
func selfSigned(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "localhost"},
		DNSNames:              []string{"localhost"},
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(time.Hour),
		IsCA:                  true,
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// pemFiles writes a certificate and its key.
func pemFiles(t *testing.T, c tls.Certificate) (certFile, keyFile string) {
	t.Helper()
	key, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for file, block := range map[string]*pem.Block{
		certFile: {Type: "CERTIFICATE", Bytes: c.Certificate[0]},
		keyFile:  {Type: "PRIVATE KEY", Bytes: key},
	} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certFile, keyFile
}

// TestTimeouts: a time bounds, and none does not.
func TestTimeouts(t *testing.T) {
	for _, limit := range []time.Duration{0, time.Hour} {
		for name, bound := range map[string]func(context.Context) (context.Context, context.CancelFunc){
			"connect":   Timeouts{Connect: limit, Handshake: time.Minute}.ConnectContext,
			"handshake": Timeouts{Connect: time.Minute, Handshake: limit}.HandshakeContext,
		} {
			ctx, cancel := bound(t.Context())
			deadline, bounded := ctx.Deadline()
			if bounded != (limit > 0) || bounded && time.Until(deadline) < 59*time.Minute || ctx.Err() != nil {
				t.Errorf("%s %s: %s, %t, %v", name, limit, deadline, bounded, ctx.Err())
			}
			cancel()
			if ctx.Err() == nil {
				t.Errorf("%s %s is not cancelled", name, limit)
			}
		}
	}
}

func TestValidateHostPort(t *testing.T) {
	for text, want := range map[string]string{
		"proxy.corp:3128": "", "127.0.0.1:1": "", "[::1]:65535": "",
		"": "missing port in address", "proxy.corp": "missing port in address", "::1:80": "too many colons in address",
		"bücher.example:1": "", "db.corp.:1": "", "ü_b:1": "the host is no name that can be looked up",
		":3128": "no host", "h:": "the port is not 1 to 65535", "h:abc": "the port is not 1 to 65535",
		"h:0": "the port is not 1 to 65535", "h:65536": "the port is not 1 to 65535", "h:-1": "the port is not 1 to 65535",
		"alice:hunter2@h": "the port is not 1 to 65535",
	} {
		ds := ValidateHostPort(text, "oauth", "proxy")
		if want == "" && len(ds) == 0 {
			continue
		}
		if len(ds) != 1 || ds[0].Summary != "oauth.proxy is not host:port: "+want || ds[0].Detail == "" || !slices.Equal(ds[0].Path, []string{"oauth", "proxy"}) {
			t.Errorf("%q: %+v", text, ds)
		}
	}
}

func TestValidateSecret(t *testing.T) {
	for text, want := range map[string]int{"": 0, "hunter2": 0, "hunter2 ": 0, "hunter2\n": 1, "hunter2\r\n": 1} {
		ds := ValidateSecret(NewSecret(text), "oauth", "password")
		if len(ds) != want {
			t.Errorf("%q: %+v", text, ds)
		}
		for _, d := range ds {
			if !d.Warning || d.Summary != "oauth.password ends in a line break, which counts as part of it" || d.Detail == "" || !slices.Equal(d.Path, []string{"oauth", "password"}) {
				t.Errorf("%q: %+v", text, d)
			}
		}
	}
}

func TestTLSConfig(t *testing.T) {
	certFile, keyFile := pemFiles(t, selfSigned(t))
	c, err := TLS{MinVersion: "1.2"}.Config("far.example")
	if err != nil || c.ServerName != "far.example" || c.MinVersion != tls.VersionTLS12 || c.RootCAs != nil || c.InsecureSkipVerify {
		t.Errorf("by default: %+v, %v", c, err)
	}
	all := TLS{
		CAFile: certFile, CertFile: certFile, KeyFile: keyFile, ServerName: "other.example", MinVersion: "1.2", MaxVersion: "1.2",
		CipherSuites: []string{"TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", "TLS_RSA_WITH_AES_128_GCM_SHA256"}, InsecureSkipVerify: true,
	}
	c, err = all.Config("far.example")
	if err != nil || c.ServerName != "other.example" || c.MinVersion != tls.VersionTLS12 || c.MaxVersion != tls.VersionTLS12 ||
		!slices.Equal(c.CipherSuites, []uint16{tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, tls.TLS_RSA_WITH_AES_128_GCM_SHA256}) || c.RootCAs == nil || c.GetClientCertificate == nil || !c.InsecureSkipVerify {
		t.Errorf("with everything: %+v, %v", c, err)
	}
	for _, bad := range []TLS{{MinVersion: "1.1"}, {MinVersion: "1.3", MaxVersion: "1.2"}, {CipherSuites: []string{"x"}}, {KeyLogFile: keyFile}, {CAFile: keyFile}, {CAFile: "/nowhere"}, {CertFile: certFile}, {CertFile: keyFile, KeyFile: keyFile}} {
		if _, err := bad.Config("h"); err == nil {
			t.Errorf("%+v is accepted", bad)
		}
	}
}

// A proxy is no far end: what a user asks for there does not hold for it.
func TestProxysTLS(t *testing.T) {
	l := &way{tls: TLS{ServerName: "far.example", CertFile: "/nowhere", KeyFile: "/nowhere", MinVersion: "1.3", MaxVersion: "1.3", CipherSuites: []string{"x"}, KeyLogFile: "/nowhere", InsecureSkipVerify: true}}
	c, err := l.proxyTLS("proxy.example")
	if err != nil || c.ServerName != "proxy.example" || c.MinVersion != tls.VersionTLS13 || c.MaxVersion != 0 || c.CipherSuites != nil ||
		c.KeyLogWriter != nil || c.InsecureSkipVerify || c.GetClientCertificate != nil {
		t.Errorf("%+v, %v", c, err)
	}
}

func TestTLSValidate(t *testing.T) {
	certFile, keyFile := pemFiles(t, selfSigned(t))
	for _, tc := range []struct {
		block   TLS
		path    []string
		warning bool
	}{
		{block: TLS{}},
		{block: TLS{CAFile: certFile, CertFile: certFile, KeyFile: keyFile, MinVersion: "1.3"}},
		{block: TLS{CAFile: keyFile}, path: []string{"tls", "ca_file"}},
		{block: TLS{CAFile: "/nowhere"}, path: []string{"tls", "ca_file"}},
		{block: TLS{CertFile: certFile}, path: []string{"tls", "cert_file"}},
		{block: TLS{KeyFile: keyFile}, path: []string{"tls", "key_file"}},
		{block: TLS{CertFile: keyFile, KeyFile: keyFile}, path: []string{"tls", "cert_file"}},
		{block: TLS{MinVersion: "1.3", MaxVersion: "1.2"}, path: []string{"tls", "max_version"}},
		{block: TLS{CipherSuites: []string{"TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "x"}}, path: []string{"tls", "cipher_suites", "1"}},
		{block: TLS{CipherSuites: []string{"TLS_RSA_WITH_AES_128_GCM_SHA256"}}, path: []string{"tls", "cipher_suites", "0"}, warning: true},
		{block: TLS{KeyLogFile: filepath.Join(t.TempDir(), "keys")}, path: []string{"tls", "key_log_file"}},
		{block: TLS{InsecureSkipVerify: true}, path: []string{"tls", "insecure_skip_verify"}, warning: true},
	} {
		ds := tc.block.Validate("tls")
		if tc.path == nil && len(ds) == 0 {
			continue
		}
		if len(ds) != 1 || ds[0].Warning != tc.warning || !slices.Equal(ds[0].Path, tc.path) || ds[0].Summary == "" || ds[0].Detail == "" {
			t.Errorf("%+v: %+v", tc.block, ds)
		}
	}
}
