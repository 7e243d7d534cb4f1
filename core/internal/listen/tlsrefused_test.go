package listen

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/nettest"
)

// TestTLSRefuses: whoever is not let in is told so by an alert, and the log by what to do.
func TestTLSRefuses(t *testing.T) {
	r := newTLSRig(t)
	other := nettest.NewAuthority(t, "other")
	r.options.ClientCAFile, r.options.AllowSAN, r.options.ALPN = r.authority.File(t), []string{"*.corp"}, []string{"one"}
	r.options.MinVersion = "1.2"
	with := func(change func(*tls.Config)) func() *tls.Config {
		return func() *tls.Config {
			c := r.client("web.corp")
			change(c)
			return c
		}
	}
	for name, tt := range map[string]struct {
		client func() *tls.Config
		alert  string // that the client gets
		err    string
		hint   string
	}{
		"no certificate": {func() *tls.Config { return r.client() }, "certificate required|handshake failure", "TLS for \"proxy.example\": client didn't provide a certificate", "client_ca_file"},
		"not allowed": {func() *tls.Config { return r.client("web.other", "spiffe://corp/web") }, "bad certificate",
			"no name of the client's certificate is in allow_san: it has spiffe://corp/web, web.other", "allow_san"},
		"another authority": {with(func(c *tls.Config) {
			c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				pair := r.certificate(other, &x509.Certificate{}, "web.corp")
				return &pair, nil
			}
		}), "unknown certificate authority", "unknown authority", "client_ca_file"},
		"expired": {with(func(c *tls.Config) {
			c.Certificates = []tls.Certificate{r.certificate(r.authority, &x509.Certificate{NotAfter: time.Now().Add(-time.Minute)}, "web.corp")}
		}), "expired certificate", "expired", "has expired"},
		"a server's": {with(func(c *tls.Config) {
			c.Certificates = []tls.Certificate{r.certificate(r.authority, &x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}, "web.corp")}
		}), "bad certificate", "incompatible key usage", "clientAuth"},
		"no protocol":           {with(func(c *tls.Config) { c.NextProtos = []string{"two", "three"} }), "no application protocol", "unsupported application protocols", `["two" "three"] by ALPN`},
		"it does not take ours": {with(func(c *tls.Config) { c.RootCAs = x509.NewCertPool() }), "", "remote error: tls: bad certificate", "the client does not take the listener's certificate"},
		"another name":          {with(func(c *tls.Config) { c.ServerName = "elsewhere.example" }), "", "TLS for \"elsewhere.example\"", "does not take the listener's certificate"},
	} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			t.Run(name+", "+tls.VersionName(version), func(t *testing.T) {
				t.Parallel()
				raw, done := r.begin(KindSOCKS5, patience)
				config := tt.client()
				config.MaxVersion = version
				c := tls.Client(raw, config)
				_, err := io.WriteString(c, "\x05\x01\x00")
				if err == nil {
					_, err = io.ReadAll(c)
				}
				_ = raw.Close()
				got := false
				for _, alert := range strings.Split(tt.alert, "|") {
					got = got || err != nil && strings.Contains(err.Error(), alert)
				}
				if !got {
					t.Errorf("the client is told %v, want %s", err, tt.alert)
				}
				o := await(t, done)
				if o.err == nil || !strings.Contains(o.err.Error(), tt.err) || Reason(o.err) != "tls" || !strings.Contains(Hint(o.err), tt.hint) {
					t.Errorf("error %v, reason %s, hint %q; want %s, %s", o.err, Reason(o.err), Hint(o.err), tt.err, tt.hint)
				}
			})
		}
	}
	// Versions, of which crypto/tls has no client of its own for the oldest.
	for name, tt := range map[string]struct{ least, most, ours, hint string }{
		"an old client": {"1.0", "1.1", "1.2", "at most TLS 1.1, and the listener at least TLS 1.2"},
		"a new client":  {"1.3", "1.3", "1.2 only", "at least TLS 1.3, and the listener at most TLS 1.2"},
		"an old server": {"1.2", "1.2", "1.3", "at most TLS 1.2, and the listener at least TLS 1.3"},
	} {
		t.Run(name, func(t *testing.T) {
			numbers := map[string]uint16{"1.0": tls.VersionTLS10, "1.1": tls.VersionTLS11, "1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13}
			r := newTLSRig(t)
			if r.options.MinVersion = tt.ours; tt.ours == "1.2 only" {
				r.options.MinVersion, r.options.MaxVersion = "1.2", "1.2"
			}
			raw, done := r.begin(KindTCP, patience)
			config := r.client()
			config.MinVersion, config.MaxVersion = numbers[tt.least], numbers[tt.most]
			if err := tls.Client(raw, config).Handshake(); err == nil || !strings.Contains(err.Error(), "protocol version") {
				t.Errorf("the client is told %v", err)
			}
			_ = raw.Close()
			if o := await(t, done); Reason(o.err) != "tls" || !strings.Contains(Hint(o.err), tt.hint) {
				t.Errorf("error %v, hint %q", o.err, Hint(o.err))
			}
		})
	}
}

// TestTLSFilesOfNoUse: the client is reset, and the log says why.
func TestTLSFilesOfNoUse(t *testing.T) {
	r := newTLSRig(t)
	if err := os.Remove(r.options.Pairs[0].KeyFile); err != nil {
		t.Fatal(err)
	}
	raw, done := r.begin(KindHTTP, patience)
	if err := tls.Client(raw, r.client()).Handshake(); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the client is told %v", err)
	}
	if o := await(t, done); !errors.Is(o.err, os.ErrNotExist) || Reason(o.err) != "tls" || !strings.Contains(Hint(o.err), "tls block") {
		t.Errorf("error %v, hint %q", o.err, Hint(o.err))
	}
}
