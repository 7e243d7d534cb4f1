package neterr

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http/httptest"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

func TestClassify(t *testing.T) {
	op := func(errno syscall.Errno) error {
		return fmt.Errorf("dial: %w", &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", errno)})
	}
	tests := []struct {
		name      string
		err       error
		reason    pluginv1.Reason
		retryable bool
	}{
		{"canceled", fmt.Errorf("x: %w", context.Canceled), pluginv1.Reason_REASON_CANCELED, false},
		{"deadline", context.DeadlineExceeded, pluginv1.Reason_REASON_TIMEOUT, true},
		{"socket deadline", os.ErrDeadlineExceeded, pluginv1.Reason_REASON_TIMEOUT, true},
		{"no such name", &net.DNSError{Name: "db.invalid", IsNotFound: true}, pluginv1.Reason_REASON_NOT_FOUND, true},
		{"name server is silent", &net.DNSError{Name: "db.invalid", IsTimeout: true}, pluginv1.Reason_REASON_TIMEOUT, true},
		{"name server fails", &net.DNSError{Name: "db.invalid"}, pluginv1.Reason_REASON_UNAVAILABLE, true},
		{"no such socket", op(syscall.ENOENT), pluginv1.Reason_REASON_NOT_FOUND, true},
		{"client certificate", &net.OpError{Op: "remote error", Err: tls.AlertError(42)}, pluginv1.Reason_REASON_UNAUTHENTICATED, true},
		{"no client certificate", &net.OpError{Op: "remote error", Err: tls.AlertError(116)}, pluginv1.Reason_REASON_UNAUTHENTICATED, true},
		{"no client certificate, by Mbed TLS", &net.OpError{Op: "remote error", Err: tls.AlertError(41)}, pluginv1.Reason_REASON_UNAUTHENTICATED, true},
		{"a client certificate without rights", &net.OpError{Op: "remote error", Err: tls.AlertError(49)}, pluginv1.Reason_REASON_UNAUTHENTICATED, true},
		{"illegal parameter", &net.OpError{Op: "remote error", Err: tls.AlertError(47)}, pluginv1.Reason_REASON_PROTOCOL, false},
		{"no cipher suite", &net.OpError{Op: "remote error", Err: tls.AlertError(40)}, pluginv1.Reason_REASON_PROTOCOL, true},
		{"another alert", &net.OpError{Op: "remote error", Err: tls.AlertError(80)}, pluginv1.Reason_REASON_PROTOCOL, false},
		{"TLS version", &net.OpError{Op: "remote error", Err: tls.AlertError(70)}, pluginv1.Reason_REASON_PROTOCOL, false},
		{"refused", op(syscall.ECONNREFUSED), pluginv1.Reason_REASON_REFUSED, true},
		{"host unreachable", op(syscall.EHOSTUNREACH), pluginv1.Reason_REASON_UNREACHABLE, true},
		{"network unreachable", op(syscall.ENETUNREACH), pluginv1.Reason_REASON_UNREACHABLE, true},
		{"connect timed out", op(syscall.ETIMEDOUT), pluginv1.Reason_REASON_TIMEOUT, true},
		{"firewall", op(syscall.EPERM), pluginv1.Reason_REASON_DENIED, true},
		{"descriptors", op(syscall.EMFILE), pluginv1.Reason_REASON_UNAVAILABLE, true},
		{"reset", op(syscall.ECONNRESET), pluginv1.Reason_REASON_UNAVAILABLE, true},
		{"closed midway", io.ErrUnexpectedEOF, pluginv1.Reason_REASON_PROTOCOL, true},
		{"unknown authority", &tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}}, pluginv1.Reason_REASON_PROTOCOL, false},
		{"wrong host", x509.HostnameError{Certificate: &x509.Certificate{}, Host: "a"}, pluginv1.Reason_REASON_PROTOCOL, false},
		{"expired", x509.CertificateInvalidError{Reason: x509.Expired}, pluginv1.Reason_REASON_PROTOCOL, false},
		{"unknown", errors.New("odd"), pluginv1.Reason_REASON_UNAVAILABLE, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := Classify(tt.err)
			if m.Reason != tt.reason || m.Retryable != tt.retryable {
				t.Errorf("Classify = %s, retryable %v; want %s, %v", m.Reason.Text(), m.Retryable, tt.reason.Text(), tt.retryable)
			}
			if m.Hint == "" && tt.name != "canceled" && tt.name != "unknown" {
				t.Error("no hint")
			}
		})
	}
}

// TestClassifyAt: only an answer that is late is told apart by its stage.
func TestClassifyAt(t *testing.T) {
	for _, tt := range []struct {
		stage pluginv1.Stage
		err   error
		took  bool
	}{
		{pluginv1.Stage_STAGE_UNSPECIFIED, context.DeadlineExceeded, false},
		{pluginv1.Stage_STAGE_CONNECT, context.DeadlineExceeded, false},
		{pluginv1.Stage_STAGE_CREDENTIAL, context.DeadlineExceeded, false},
		{pluginv1.Stage_STAGE_TLS, os.ErrDeadlineExceeded, true},
		{pluginv1.Stage_STAGE_HANDSHAKE, context.DeadlineExceeded, true},
		{pluginv1.Stage_STAGE_REQUEST, os.ErrDeadlineExceeded, true},
		{pluginv1.Stage_STAGE_REQUEST, syscall.ETIMEDOUT, false},
		{pluginv1.Stage_STAGE_REQUEST, io.EOF, false},
		{pluginv1.Stage_STAGE_REQUEST, &net.DNSError{IsTimeout: true}, false},
	} {
		got, plain := ClassifyAt(tt.stage, tt.err), Classify(tt.err)
		if took := strings.HasPrefix(got.Hint, "the far end accepted the connection"); took != tt.took || !took && got != plain || got.Reason != plain.Reason {
			t.Errorf("%s, %v: %+v", tt.stage.Text(), tt.err, got)
		}
	}
}

// TestRealSockets classifies what real sockets say.
func TestRealSockets(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := ln.Addr().String()
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = new(net.Dialer).DialContext(ctx, "tcp", closed)
	if m := Classify(err); m.Reason != pluginv1.Reason_REASON_REFUSED {
		t.Errorf("closed port: %s", m.Reason.Text())
	}
	plain := httptest.NewServer(nil)
	defer plain.Close()
	_, err = (&tls.Dialer{}).DialContext(ctx, "tcp", plain.Listener.Addr().String())
	if m := Classify(err); m.Reason != pluginv1.Reason_REASON_PROTOCOL || m.Retryable {
		t.Errorf("TLS to a plain port: %s (%v)", m.Reason.Text(), err)
	}
	secure := httptest.NewTLSServer(nil)
	defer secure.Close()
	_, err = (&tls.Dialer{}).DialContext(ctx, "tcp", secure.Listener.Addr().String())
	if m := Classify(err); m.Hint != "the server's certificate is signed by an authority that is not trusted here: set tls.ca_file" {
		t.Errorf("unknown authority: %+v (%v)", m, err)
	}
}

// TestHintsOfTLS: what real servers do, and what helps against it.
func TestHintsOfTLS(t *testing.T) {
	modern := certified(t, &x509.Certificate{DNSNames: []string{"far.corp"}})
	for name, tt := range map[string]struct {
		server *tls.Config
		hint   []string
	}{
		"only a Common Name": {
			&tls.Config{Certificates: []tls.Certificate{certified(t, &x509.Certificate{Subject: pkix.Name{CommonName: "far.corp"}})}},
			[]string{"issued anew", "subjectAltName"},
		},
		"another name": {
			&tls.Config{Certificates: []tls.Certificate{certified(t, &x509.Certificate{DNSNames: []string{"other.corp"}})}},
			[]string{"set tls.server_name"},
		},
		"only RSA key exchange": {
			&tls.Config{Certificates: []tls.Certificate{modern}, MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_RSA_WITH_AES_128_GCM_SHA256}},
			[]string{"enable ECDHE there", "tls.cipher_suites"},
		},
		"a client certificate": {
			&tls.Config{Certificates: []tls.Certificate{modern}, ClientAuth: tls.RequireAnyClientCert, MinVersion: tls.VersionTLS13},
			[]string{"requires a client certificate", "tls.cert_file and tls.key_file"},
		},
		"a client certificate, TLS 1.2": {
			&tls.Config{Certificates: []tls.Certificate{modern}, ClientAuth: tls.RequireAnyClientCert, MaxVersion: tls.VersionTLS12},
			[]string{"requires a client certificate", "tls.cert_file and tls.key_file"},
		},
		"an old version": {
			&tls.Config{Certificates: []tls.Certificate{modern}, MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10},
			[]string{"tls.min_version and tls.max_version", "speaks TLS 1.2 or 1.3"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			ln, err := tls.Listen("tcp", "127.0.0.1:0", tt.server)
			if err != nil {
				t.Fatal(err)
			}
			served := make(chan struct{})
			go func() {
				defer close(served)
				if c, err := ln.Accept(); err == nil {
					_ = c.(*tls.Conn).Handshake() // the client is told
					_ = c.Close()
				}
			}()
			t.Cleanup(func() { _ = ln.Close(); <-served })
			pool := x509.NewCertPool()
			for _, c := range tt.server.Certificates {
				pool.AddCert(c.Leaf)
			}
			c, err := tls.Dial("tcp", ln.Addr().String(), &tls.Config{RootCAs: pool, ServerName: "far.corp"})
			if err == nil {
				_ = c.SetDeadline(time.Now().Add(10 * time.Second))
				_, err = c.Read(make([]byte, 1))
				_ = c.Close()
			}
			m := Classify(err)
			for _, part := range tt.hint {
				if !strings.Contains(m.Hint, part) {
					t.Errorf("hint %q of %v has no %q", m.Hint, err, part)
				}
			}
		})
	}
}

// certified is a certificate by itself, with an RSA key.
func certified(t *testing.T, template *x509.Certificate) tls.Certificate {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(1)
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	template.IsCA, template.BasicConstraintsValid = true, true
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}
