// Package neterr says what an error of the net, tls and context packages means
// for a dial: a reason, whether another try may succeed, and a hint. Plugins
// and the built-in upstream classify with the same words.
package neterr

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"reflect"
	"strings"
	"syscall"
	"time"

	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// ErrOvertime is the cause of a plugin's context that ends because the daemon's
// time for the dial is over. It is a context.DeadlineExceeded.
var ErrOvertime error = overtimeError{}

type overtimeError struct{}

func (overtimeError) Error() string {
	return "this upstream's share of the listener's timeouts.dial is over"
}

func (overtimeError) Unwrap() error { return context.DeadlineExceeded }

// Meaning is what a failure means.
type Meaning struct {
	Reason    pluginv1.Reason
	Retryable bool
	// Hint says what to check; empty where nothing sensible can be said.
	Hint string
}

// Explained is an error whose maker knows what it means.
type Explained struct {
	Meaning
	// Message says what happened; no secret is in it.
	Message string
	// RetryAfter says for how long another try is pointless; 0: not known.
	RetryAfter time.Duration
	// Err is the cause, or nil; its text is not shown.
	Err error
}

// Error returns the message.
func (e *Explained) Error() string { return e.Message }

// Unwrap returns the cause.
func (e *Explained) Unwrap() error { return e.Err }

// Classify returns the meaning of err, which is not nil. What it does not know
// is unavailable and retryable.
func Classify(err error) Meaning {
	var (
		dns         *net.DNSError
		unknownCA   x509.UnknownAuthorityError
		wrongHost   x509.HostnameError
		invalidCert x509.CertificateInvalidError
		record      tls.RecordHeaderError
		timeout     net.Error
		explained   *Explained
	)
	alert, isAlert := alertOf(err)
	switch {
	case errors.As(err, &explained):
		return explained.Meaning
	case errors.Is(err, context.Canceled):
		return Meaning{Reason: pluginv1.Reason_REASON_CANCELED}
	case errors.As(err, &dns) && dns.IsTimeout:
		return Meaning{pluginv1.Reason_REASON_TIMEOUT, true, fmt.Sprintf("the name server did not answer for %q: check this machine's DNS", dns.Name)}
	case errors.As(err, &dns) && dns.IsNotFound:
		return Meaning{pluginv1.Reason_REASON_NOT_FOUND, true, fmt.Sprintf("check the name %q and that this machine can resolve it", dns.Name)}
	case errors.As(err, &dns):
		return Meaning{pluginv1.Reason_REASON_UNAVAILABLE, true, fmt.Sprintf("the name server failed for %q: check this machine's DNS", dns.Name)}
	case errors.As(err, &unknownCA):
		return Meaning{pluginv1.Reason_REASON_PROTOCOL, false, "the server's certificate is signed by an authority that is not trusted here: set tls.ca_file"}
	case errors.As(err, &wrongHost):
		return Meaning{pluginv1.Reason_REASON_PROTOCOL, false, "the server's certificate is for another name: check the address, or set tls.server_name"}
	case errors.As(err, &invalidCert):
		return Meaning{pluginv1.Reason_REASON_PROTOCOL, false, "the server's certificate is not valid: check its dates and both clocks"}
	case errors.As(err, &record):
		return Meaning{pluginv1.Reason_REASON_PROTOCOL, false, "the server does not speak TLS on this port: check port and scheme"}
	case isAlert && aboutClientCertificate(alert):
		return Meaning{pluginv1.Reason_REASON_UNAUTHENTICATED, false, "the server refused the client's certificate: check tls.cert_file and tls.key_file"}
	case isAlert:
		return Meaning{pluginv1.Reason_REASON_PROTOCOL, false, "the server refused the TLS handshake: check tls.min_version"}
	case errors.Is(err, syscall.ECONNREFUSED):
		return Meaning{pluginv1.Reason_REASON_REFUSED, true, "nothing listens there: check host and port, and that the service runs"}
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.EHOSTDOWN), errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.ENETDOWN):
		return Meaning{pluginv1.Reason_REASON_UNREACHABLE, true, "no network path from this machine: check routes and firewalls"}
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return Meaning{pluginv1.Reason_REASON_UNREACHABLE, true, "no address to connect from: check that bind is an address of this machine, and that local ports are left"}
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return Meaning{pluginv1.Reason_REASON_DENIED, true, "this machine does not allow the connection: check its firewall and sandbox"}
	case errors.Is(err, syscall.ENOENT):
		return Meaning{pluginv1.Reason_REASON_NOT_FOUND, true, "there is no such file or socket: check the path"}
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return Meaning{pluginv1.Reason_REASON_UNAVAILABLE, true, "no file descriptors are left: raise LimitNOFILE or lower daemon.max_connections"}
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, syscall.ETIMEDOUT), errors.As(err, &timeout) && timeout.Timeout():
		return Meaning{pluginv1.Reason_REASON_TIMEOUT, true, lateHint}
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return Meaning{pluginv1.Reason_REASON_PROTOCOL, true, "the far end closed the connection in the middle of the handshake: check that it speaks this protocol on this port"}
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return Meaning{pluginv1.Reason_REASON_UNAVAILABLE, true, "the far end broke off the connection"}
	default:
		return Meaning{Reason: pluginv1.Reason_REASON_UNAVAILABLE, Retryable: true}
	}
}

// ClassifyAt is Classify for a failure at a stage. What is late once the
// connection is made says nothing of the way there.
func ClassifyAt(stage pluginv1.Stage, err error) Meaning {
	m := Classify(err)
	if m.Hint != lateHint || errors.Is(err, syscall.ETIMEDOUT) {
		return m
	}
	switch stage {
	case pluginv1.Stage_STAGE_TLS, pluginv1.Stage_STAGE_HANDSHAKE, pluginv1.Stage_STAGE_REQUEST:
		if errors.Is(err, ErrOvertime) {
			return Meaning{m.Reason, m.Retryable, "the far end accepted the connection but did not answer: check that it speaks this protocol, or raise timeouts.dial of the listener"}
		}
		return Meaning{m.Reason, m.Retryable, "the far end accepted the connection but did not answer: check that it speaks this protocol, or raise timeouts.handshake"}
	}
	return m
}

const lateHint = "no answer in time: check that the address is reachable from this machine"

// alertOf returns the alert that the far end sent. Over TCP crypto/tls has it in
// a type of its own, which is a number, and which a test would miss.
func alertOf(err error) (tls.AlertError, bool) {
	var op *net.OpError
	if !errors.As(err, &op) || op.Op != "remote error" {
		return 0, false
	}
	v := reflect.ValueOf(op.Err)
	if v.Kind() != reflect.Uint8 {
		return 0, false
	}
	return tls.AlertError(v.Uint()), true
}

// aboutClientCertificate says whether an alert is about our certificate (RFC
// 8446, section 6.2: 42 to 48 and 116).
func aboutClientCertificate(a tls.AlertError) bool {
	return a >= 42 && a <= 48 || a == 116
}

// Resolving says whether err is of looking a name up, which a dialer does
// within what looks like the connect.
func Resolving(err error) bool {
	var dns *net.DNSError
	return errors.As(err, &dns)
}

// Message returns an error's text, without the URL of an HTTP request: it may
// carry a token.
func Message(err error) string {
	var u *url.Error
	if errors.As(err, &u) {
		return strings.ToLower(u.Op) + ": " + Message(u.Err)
	}
	return err.Error()
}
