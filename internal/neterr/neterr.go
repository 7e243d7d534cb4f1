// Package neterr says what an error of the net, tls and context packages means
// for a dial: a reason, whether another try may succeed, and a hint. Plugins
// and the built-in upstream classify with the same words.
package neterr

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"reflect"
	"slices"
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
	case errors.As(err, &wrongHost) && !hasNames(wrongHost.Certificate):
		return Meaning{pluginv1.Reason_REASON_PROTOCOL, false, "the server's certificate names its host only in the Common Name, which is not read any more: it has to be issued anew with a subjectAltName; neither tls.server_name nor tls.ca_file helps"}
	case errors.As(err, &wrongHost):
		return Meaning{pluginv1.Reason_REASON_PROTOCOL, false, "the server's certificate is for another name: check the address, or set tls.server_name"}
	case errors.As(err, &invalidCert):
		return Meaning{pluginv1.Reason_REASON_PROTOCOL, false, "the server's certificate is not valid: check its dates and both clocks"}
	case errors.As(err, &record):
		return Meaning{pluginv1.Reason_REASON_PROTOCOL, false, "the server does not speak TLS on this port: check port and scheme"}
	case alert == alertCertificateRequired:
		return Meaning{pluginv1.Reason_REASON_UNAUTHENTICATED, true, "the server requires a client certificate, and was sent none: set tls.cert_file and tls.key_file to one of an authority that it accepts"}
	case isAlert && aboutClientCertificate(alert):
		return Meaning{pluginv1.Reason_REASON_UNAUTHENTICATED, true, "the server refused the client's certificate, or requires one: check tls.cert_file and tls.key_file"}
	case alert == alertHandshakeFailure:
		return Meaning{pluginv1.Reason_REASON_PROTOCOL, true, "either the server requires a client certificate (set tls.cert_file and tls.key_file), or it does not know the name (set tls.server_name), or it shares no cipher suite with this client: enable ECDHE there, or name one of its own in tls.cipher_suites (RSA key exchange is not offered by itself)"}
	case alert == alertProtocolVersion:
		return Meaning{pluginv1.Reason_REASON_PROTOCOL, false, "the server and this client share no TLS version: check tls.min_version and tls.max_version, and that the server speaks TLS 1.2 or 1.3"}
	case isAlert:
		return Meaning{pluginv1.Reason_REASON_PROTOCOL, false, "the server refused the TLS handshake: see its log"}
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

// Alerts that say what to do (RFC 8446, section 6.2).
const (
	alertHandshakeFailure    tls.AlertError = 40
	alertProtocolVersion     tls.AlertError = 70
	alertCertificateRequired tls.AlertError = 116
)

// aboutClientCertificate says whether an alert is about our certificate (RFC 8446, section
// 6.2: 42 to 46, unknown_ca, access_denied and 116). no_certificate (41) is of SSL 3, and
// what Mbed TLS sends with TLS 1.3 for want of one.
func aboutClientCertificate(a tls.AlertError) bool {
	return a >= 41 && a <= 46 || a == 48 || a == 49 || a == alertCertificateRequired
}

// RefusesCertificate says whether err is the alert of a server that refuses the client's
// certificate or requires one. With TLS 1.3 it is the error of a read after the handshake
// (RFC 8446, section 4.4.2.4).
func RefusesCertificate(err error) bool {
	alert, isAlert := alertOf(err)
	return isAlert && aboutClientCertificate(alert)
}

// RefusesHandshake says whether err is the alert of a server that shares no parameters with
// this client, or requires a client certificate: with TLS 1.2 that is the same one (RFC
// 5246, section 7.4.6).
func RefusesHandshake(err error) bool {
	alert, _ := alertOf(err)
	return alert == alertHandshakeFailure
}

// hasNames says whether a certificate has a subjectAltName (RFC 5280, section 4.2.1.6).
// crypto/x509 reads no other names.
func hasNames(c *x509.Certificate) bool {
	return slices.ContainsFunc(c.Extensions, func(e pkix.Extension) bool { return e.Id.Equal(subjectAltName) })
}

var subjectAltName = asn1.ObjectIdentifier{2, 5, 29, 17}

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
