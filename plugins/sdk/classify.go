package sdk

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/url"
	"os"
	"reflect"
	"strings"
	"syscall"

	"google.golang.org/protobuf/types/known/durationpb"

	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// dialFailure turns what Dial returned into the error that travels. What the
// author's DialError leaves open is filled in: the stage by the one entered
// last, the reason by the cause.
func dialFailure(ctx context.Context, err error, last Stage) *pluginv1.DialError {
	var d *DialError
	typed := errors.As(err, &d)
	if !typed {
		d = classify(err)
		// A dial that is cut short often surfaces as something else: a
		// connection closed under a read, say.
		if ctxErr := ctx.Err(); ctxErr != nil && d.Reason != ReasonTimeout && d.Reason != ReasonCanceled {
			d = classify(ctxErr)
		}
	}
	out := &pluginv1.DialError{
		Stage:     d.Stage,
		Reason:    d.Reason,
		Retryable: d.Retryable,
		Message:   d.Message,
		Hint:      d.Hint,
	}
	// A dialer looks names up within what an author takes for the connect; in
	// any other stage the name is part of that.
	if out.Stage == pluginv1.Stage_STAGE_UNSPECIFIED || !typed && last != StageConnect && last != pluginv1.Stage_STAGE_UNSPECIFIED {
		out.Stage = last
	}
	if out.Reason == pluginv1.Reason_REASON_UNSPECIFIED {
		c := classify(d.Err)
		out.Reason, out.Retryable = c.Reason, out.Retryable || c.Retryable
	}
	if out.Message == "" {
		out.Message = out.Reason.Text()
	}
	if d.RetryAfter > 0 {
		out.RetryAfter = durationpb.New(d.RetryAfter)
	}
	return out
}

// classify finds the reason of an error that its author did not type. It is
// retryable unless another try must end the same way.
func classify(err error) *DialError {
	d := &DialError{Reason: ReasonUnavailable, Retryable: true, Err: err}
	if err == nil {
		return d
	}
	d.Message = message(err)
	for _, f := range []func(error, *DialError) bool{classifyContext, classifyDNS, classifyTLS, classifySyscall, classifyEnd} {
		if f(err, d) {
			return d
		}
	}
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		d.Reason = ReasonTimeout
	}
	return d
}

func classifyContext(err error, d *DialError) bool {
	switch {
	case errors.Is(err, context.Canceled):
		d.Reason, d.Retryable = ReasonCanceled, false
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		d.Reason = ReasonTimeout
	default:
		return false
	}
	return true
}

// classifyDNS also names the stage.
func classifyDNS(err error, d *DialError) bool {
	var dns *net.DNSError
	if !errors.As(err, &dns) {
		return false
	}
	d.Stage = StageResolve
	switch {
	case dns.IsTimeout:
		d.Reason = ReasonTimeout
	case dns.IsNotFound:
		d.Reason = ReasonNotFound
		d.Hint = "Check the host's name, and the name servers of the machine that tunneld runs on."
	}
	return true
}

func classifyTLS(err error, d *DialError) bool {
	var (
		unverified  *tls.CertificateVerificationError
		authority   x509.UnknownAuthorityError
		host        x509.HostnameError
		certificate x509.CertificateInvalidError
		header      tls.RecordHeaderError
	)
	switch {
	case errors.As(err, &authority):
		d.Reason = ReasonUnauthenticated
		d.Hint = "The far end's certificate is from an authority that is not trusted here: set ca_file in the tls block."
	case errors.As(err, &host):
		d.Reason = ReasonUnauthenticated
		d.Hint = "The far end's certificate is for another name: check the address, or set server_name in the tls block."
	case errors.As(err, &certificate), errors.As(err, &unverified):
		d.Reason = ReasonUnauthenticated
		d.Hint = "The far end's certificate cannot be accepted: check its validity, and this machine's clock."
	case errors.As(err, &header):
		d.Reason, d.Retryable = ReasonProtocol, false
		d.Hint = "The far end does not speak TLS on this port."
	default:
		return classifyAlert(err, d)
	}
	return true
}

// classifyAlert knows the alerts that the far end sent. crypto/tls has them in
// a type of its own that is a number (RFC 8446, section 6.2); 42 to 48 and 116
// are about our certificate.
func classifyAlert(err error, d *DialError) bool {
	var op *net.OpError
	if !errors.As(err, &op) || op.Op != "remote error" {
		return false
	}
	v := reflect.ValueOf(op.Err)
	if v.Kind() != reflect.Uint8 {
		return false
	}
	d.Reason, d.Retryable = ReasonProtocol, false
	if a := v.Uint(); a >= 42 && a <= 48 || a == 116 {
		d.Reason = ReasonUnauthenticated
		d.Hint = "The far end refused the client's certificate: check cert_file and key_file in the tls block."
	}
	return true
}

func classifySyscall(err error, d *DialError) bool {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return false
	}
	switch errno {
	case syscall.ECONNREFUSED:
		d.Reason = ReasonRefused
	case syscall.ENETUNREACH, syscall.EHOSTUNREACH, syscall.ENETDOWN, syscall.EHOSTDOWN, syscall.EADDRNOTAVAIL:
		d.Reason = ReasonUnreachable
	case syscall.ETIMEDOUT:
		d.Reason = ReasonTimeout
	case syscall.EACCES, syscall.EPERM:
		d.Reason = ReasonDenied
		d.Hint = "The system refused it: check the firewall, and the sandbox that tunneld runs in."
	case syscall.ENOENT:
		d.Reason = ReasonNotFound
	case syscall.EMFILE, syscall.ENFILE:
		d.Hint = "The plugin has no descriptors left: raise the limit (LimitNOFILE, ulimit -n)."
	}
	return true
}

func classifyEnd(err error, d *DialError) bool {
	if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return false
	}
	d.Message = "the far end closed the connection before the tunnel was up"
	return true
}

// message returns an error's text. A URL may carry a token, so that of an HTTP
// request's error is left out.
func message(err error) string {
	var u *url.Error
	if errors.As(err, &u) {
		return strings.ToLower(u.Op) + ": " + message(u.Err)
	}
	return err.Error()
}
