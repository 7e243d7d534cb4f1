package listen

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"

	"github.com/tunneld/tunneld/internal/clienthello"
	"github.com/tunneld/tunneld/internal/neterr"
	"github.com/tunneld/tunneld/internal/tlsconf"
)

// TLSOptions are how a listener speaks TLS with its clients.
type TLSOptions struct {
	Server *tlsconf.Server
	// Ends says how the directions of a tunnel end.
	Ends tlsconf.Ends
}

const (
	// tlsMemory is what crypto/tls holds of a handshake, in bytes, once it has the
	// ClientHello: 21 KB were measured, without a client's certificate.
	tlsMemory = 24 << 10
	// maxFlight bounds what a client may send after its ClientHello until the handshake
	// is over, in bytes: its certificates, and the first of the tunnel's bytes if they
	// come along. crypto/tls takes a message of 256 KiB. Three certificates with RSA keys of
	// 4096 bits have some 6 KiB.
	maxFlight = 16 << 10
	// flightMemory is what crypto/tls holds for each byte of that: the message as it
	// comes, in a buffer that has grown, as a whole, and as its fields, of which a
	// certificate with thousands of empty URIs has most: 77 bytes were measured.
	flightMemory = 80
)

// tlsError is of the TLS handshake with a client.
type tlsError struct {
	name string // that the client asks for; empty: none
	hint string
	err  error
}

// Error says with what server's name the client came.
func (e *tlsError) Error() string {
	text := strings.TrimPrefix(e.err.Error(), "tls: ")
	if e.name == "" {
		return "TLS: " + text
	}
	return fmt.Sprintf("TLS for %.100q: %s", e.name, text)
}

// Unwrap returns the cause.
func (e *tlsError) Unwrap() error { return e.err }

// secure speaks TLS with a client before anything else, and returns who its certificate
// says that it is.
func (c *Conn) secure(ctx context.Context, o *TLSOptions) (user string, fail *Failure) {
	if _, err := c.Talk(ctx); err != nil {
		return "", &Failure{Err: err, Reset: true}
	}
	hello, err := clienthello.Read(c.stream, newGrowth(c.hold))
	if err != nil {
		return "", noHello(hello, err, byBlock)
	}
	behind := hello.Behind()
	if err := c.hold(tlsMemory + flightMemory*behind); err != nil {
		return "", &Failure{Err: err, Reset: true}
	}
	config, err := o.Server.Config()
	if err != nil {
		return "", &Failure{Err: &tlsError{err: err, hint: "see the files of the listener's tls block"}, Reset: true}
	}
	conn, left := tlsconf.ServerConn(c.stream.(net.Conn), hello.Raw, config, o.Ends), len(hello.Raw)-behind+maxFlight // Talk has made it one
	err = conn.HandshakeWithin(tlsconf.Meter{
		Record: func(size int) error {
			if left -= size; left < 0 {
				return errFlight
			}
			return nil
		},
		Bytes: func(n int) error { return c.hold(flightMemory * n) },
	})
	if err != nil {
		return "", failedTLS(hello, config, err)
	}
	c.stream = conn
	return o.Server.User(conn.ConnectionState()), nil
}

var errFlight = fmt.Errorf("the client sends more than %d bytes after its ClientHello", maxFlight)

// newGrowth holds what a buffer has grown by.
func newGrowth(hold func(int) error) func(size int) error {
	held := 0
	return func(size int) error {
		more := size - held
		held = size
		return hold(more)
	}
}

var byBlock = tlsFirst{
	why:      "the listener has a tls block",
	hint:     "set the client to TLS: https:// where it names an HTTP proxy, and a stunnel or the like in front of a client that has none; or remove the listener's tls block",
	postgres: `set sslnegotiation=direct in the client (libpq 17 or later), and alpn = ["postgresql"] in the listener's tls block; put stunnel or the like in front of an older client, with sslmode=disable; or remove the tls block`,
}

// noHello is the answer to a client whose ClientHello has not come as a whole.
func noHello(hello *clienthello.Hello, err error, by tlsFirst) *Failure {
	var (
		foreign   *clienthello.NotTLSError
		malformed *clienthello.MalformedError
	)
	switch {
	case errors.As(err, &foreign):
		return withoutTLS(hello.Raw, by)
	case errors.As(err, &malformed):
		hint := "see what connects to this port: it begins like TLS, and goes on otherwise"
		if malformed == clienthello.ErrSSL2 {
			hint = "the client is old, or set to be: have it begin with a hello of TLS 1.2 or newer (in Java without SSLv2Hello)"
		}
		return &Failure{Err: &tlsError{err: err, hint: hint}, Answer: tlsAlert(tls.AlertError(malformed.Alert))}
	case len(hello.Raw) == 0 && left(err):
		return &Failure{Err: ErrNothing}
	}
	return &Failure{Err: &tlsError{err: fmt.Errorf("before its ClientHello was complete: %w", err)}, Reset: true}
}

// failedTLS is a handshake that crypto/tls has ended. It has sent an alert where that
// makes sense.
func failedTLS(hello *clienthello.Hello, config *tls.Config, err error) *Failure {
	info, infoErr := hello.Info()
	if infoErr != nil {
		info = &clienthello.Info{} // crypto/tls says so as well
	}
	hint := tlsHint(info, config, err)
	var unverified *tls.CertificateVerificationError
	if errors.As(err, &unverified) {
		err = errors.New(err.Error()) // without the certificates, until the client is gone
	}
	return &Failure{
		Err:      &tlsError{info.ServerName, hint, err},
		Answered: true,
		Reset:    errors.Is(err, os.ErrDeadlineExceeded),
	}
}

// noCertificate is what crypto/tls says of a client without one, where it needs one; it
// has no type. A test looks whether it still does.
const noCertificate = "client didn't provide a certificate"

// tlsHint says what to check after a failed handshake.
func tlsHint(info *clienthello.Info, config *tls.Config, err error) string {
	var (
		san       *tlsconf.SANError
		large     *tlsconf.LargeError
		unknownCA x509.UnknownAuthorityError
		invalid   x509.CertificateInvalidError
	)
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "" // Hint has one
	case errors.As(err, &san):
		return "if this client may come in, add a pattern for one of its names to allow_san of the listener's tls block"
	case errors.As(err, &large):
		return "see what certificates the client sends: its own, with fewer names, and those up to an authority in client_ca_file, are enough"
	case errors.As(err, &unknownCA):
		return "the client's certificate is by none of the authorities in client_ca_file, or the client does not send the certificates in between"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "the client's certificate has expired, or is not valid yet: renew it, and check both clocks"
	case errors.As(err, &invalid) && invalid.Reason == x509.IncompatibleUsage:
		return "the client's certificate is not one for clients: issue one with the extended key usage clientAuth"
	case strings.HasSuffix(err.Error(), noCertificate):
		return "the listener needs a client certificate (client_ca_file): set the client's certificate and key"
	case neterr.RefusesCertificate(err):
		return "the client does not take the listener's certificate: it has to be by an authority that the client knows, for the name that the client asks for, and cert_file needs the certificates in between, too"
	case len(info.Versions) > 0 && slices.Max(info.Versions) < config.MinVersion:
		return fmt.Sprintf("the client speaks at most %s, and the listener at least %s (min_version, of which 1.2 is the oldest)", tls.VersionName(slices.Max(info.Versions)), tls.VersionName(config.MinVersion))
	case len(info.Versions) > 0 && config.MaxVersion != 0 && slices.Min(info.Versions) > config.MaxVersion:
		return fmt.Sprintf("the client speaks at least %s, and the listener at most %s (max_version)", tls.VersionName(slices.Min(info.Versions)), tls.VersionName(config.MaxVersion))
	case noProtocol(info.Protocols, config.NextProtos):
		return fmt.Sprintf("the client asks for the protocols %.200q by ALPN, and alpn of the listener has none of them", info.Protocols)
	case errors.Is(err, errFlight):
		return "see how many certificates the client sends: its own, and those up to an authority in client_ca_file, are enough"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), broken(err):
		return "the client broke the handshake off: see its log; clients that do not take the listener's certificate often leave so"
	}
	return "see the client's log"
}

// noProtocol says whether client and server both choose protocols by ALPN, and share none.
func noProtocol(client, server []string) bool {
	return len(client) > 0 && len(server) > 0 && !slices.ContainsFunc(client, func(p string) bool { return slices.Contains(server, p) })
}
