package tlsconf

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"slices"
	"strings"
	"testing"
)

// TestClientOffers: a server finds the versions and suites that were asked for, and no
// others.
func TestClientOffers(t *testing.T) {
	const (
		strong = "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"
		weak   = "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256"
	)
	onlyWeak := []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256}
	for name, tt := range map[string]struct {
		client  ClientOptions
		server  []uint16
		version uint16
		suite   string // "": the handshake fails
	}{
		"the newest by default":     {ClientOptions{}, nil, tls.VersionTLS13, "TLS_AES_128_GCM_SHA256"},
		"no newer than asked for":   {ClientOptions{MaxVersion: "1.2"}, nil, tls.VersionTLS12, "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"},
		"one suite":                 {ClientOptions{MaxVersion: "1.2", CipherSuites: strong}, nil, tls.VersionTLS12, strong},
		"suites are of TLS 1.2":     {ClientOptions{CipherSuites: strong}, nil, tls.VersionTLS13, "TLS_AES_128_GCM_SHA256"},
		"no weak suite by default":  {ClientOptions{MaxVersion: "1.2"}, onlyWeak, 0, ""},
		"a weak suite on request":   {ClientOptions{MaxVersion: "1.2", CipherSuites: JoinSuites([]string{strong, weak})}, onlyWeak, tls.VersionTLS12, weak},
		"a server with none of it":  {ClientOptions{MaxVersion: "1.2", CipherSuites: strong}, onlyWeak, 0, ""},
		"TLS 1.2 alone and nothing": {ClientOptions{MinVersion: "1.2", MaxVersion: "1.2"}, nil, tls.VersionTLS12, "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"},
	} {
		t.Run(name, func(t *testing.T) {
			server := strictServer(t, newAuthority(t), "far.example", 0)
			server.ClientAuth, server.CipherSuites = tls.NoClientCert, tt.server
			tt.client.InsecureSkipVerify = true
			s, err := meet(t, NewClient(tt.client).must(t, "far.example"), server)
			switch {
			case tt.suite == "":
				if err == nil {
					t.Errorf("%s was agreed on", tls.CipherSuiteName(s.client.CipherSuite))
				}
			case err != nil:
				t.Error(err)
			case s.client.Version != tt.version || tls.CipherSuiteName(s.client.CipherSuite) != tt.suite:
				t.Errorf("%s with %s", tls.VersionName(s.client.Version), tls.CipherSuiteName(s.client.CipherSuite))
			}
		})
	}
	for _, o := range []ClientOptions{{MinVersion: "1.3", MaxVersion: "1.2"}, {MaxVersion: "1.1"}, {CipherSuites: "TLS_AES_128_GCM_SHA256"}} {
		if _, err := NewClient(o).Config("x"); err == nil {
			t.Errorf("%+v is taken", o)
		}
	}
}

// TestRSAKeyExchange: a server with nothing else is reached once one of its suites is named.
func TestRSAKeyExchange(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	server := &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, MaxVersion: tls.VersionTLS12,
		CipherSuites: []uint16{tls.TLS_RSA_WITH_AES_128_GCM_SHA256},
	}
	for suites, reached := range map[string]bool{"": false, "TLS_RSA_WITH_AES_128_GCM_SHA256": true} {
		s, err := meet(t, NewClient(ClientOptions{InsecureSkipVerify: true, CipherSuites: suites}).must(t, "x"), server)
		if (err == nil) != reached || reached && tls.CipherSuiteName(s.client.CipherSuite) != suites {
			t.Errorf("%q: %s, %v", suites, tls.CipherSuiteName(s.client.CipherSuite), err)
		}
	}
}

// TestProblems: each with the option that it is of.
func TestProblems(t *testing.T) {
	suites := func(names ...string) ClientOptions { return ClientOptions{CipherSuites: JoinSuites(names)} }
	for name, tt := range map[string]struct {
		options ClientOptions
		want    []string // "option index: the beginning of the summary: a part of the detail"
	}{
		"none":              {ClientOptions{MinVersion: "1.2", MaxVersion: "1.3", CipherSuites: "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"}, nil},
		"turned round":      {ClientOptions{MinVersion: "1.3", MaxVersion: "1.2"}, []string{"max_version 0: the newest version: "}},
		"weak":              {suites("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "TLS_RSA_WITH_AES_128_GCM_SHA256"), []string{"cipher_suites 1: warning: a weak cipher suite: no forward secrecy, or a known weakness"}},
		"TLS 1.3's":         {suites("TLS_AES_128_GCM_SHA256"), []string{"cipher_suites 0: a cipher suite of TLS 1.3: Remove it"}},
		"OpenSSL's":         {suites("ECDHE-RSA-AES128-GCM-SHA256"), []string{`cipher_suites 0: not the name: Did you mean "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"?`}},
		"OpenSSL's RSA":     {suites("AES128-GCM-SHA256"), []string{`cipher_suites 0: not the name: Did you mean "TLS_RSA_WITH_AES_128_GCM_SHA256"?`}},
		"in small letters":  {suites("tls_ecdhe_rsa_with_aes_128_gcm_sha256"), []string{`cipher_suites 0: not the name: Did you mean "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"?`}},
		"unknown":           {suites("RC5"), []string{"cipher_suites 0: not the name: TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256. Go's others, such as TLS_RSA_WITH_AES_128_GCM_SHA256, are taken too"}},
		"empty":             {ClientOptions{CipherSuites: JoinSuites([]string{"", "TLS_RSA_WITH_AES_128_GCM_SHA256"})}, []string{"cipher_suites 0: not the name: ", "cipher_suites 1: warning: a weak cipher suite: no forward secrecy, or a known weakness"}},
		"nothing but empty": {suites(""), []string{"cipher_suites 0: not the name: "}},
		"of no use":         {ClientOptions{MinVersion: "1.3", CipherSuites: "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"}, []string{"cipher_suites 0: warning: the choice of cipher_suites has no effect: "}},
	} {
		t.Run(name, func(t *testing.T) {
			var got []Problem
			for _, p := range tt.options.Problems() {
				got = append(got, p)
				if p.Detail == "" || len(p.Detail) > 400 { // what is printed of it
					t.Errorf("%+v", p)
				}
			}
			if !slices.EqualFunc(got, tt.want, func(p Problem, want string) bool {
				warning := ""
				if p.Warning {
					warning = "warning: "
				}
				head, detail, _ := cutLast(want, ": ")
				return strings.HasPrefix(p.Option+" "+string(rune('0'+p.Index))+": "+warning+p.Summary, head) && strings.Contains(p.Detail, detail)
			}) {
				t.Errorf("%+v, want %q", got, tt.want)
			}
		})
	}
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}
