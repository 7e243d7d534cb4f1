package neterr

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
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
		{"client certificate", &net.OpError{Op: "remote error", Err: tls.AlertError(116)}, pluginv1.Reason_REASON_UNAUTHENTICATED, false},
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
