package tlsconf

import (
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tunneld/tunneld/internal/follow"
)

// Pair names a certificate chain and its private key.
type Pair struct{ CertFile, KeyFile string }

// ServerOptions is the server's side of TLS. At least one pair is required.
type ServerOptions struct {
	// Pairs are chosen from by the name that the client asks for (RFC 6066, section
	// 3): one that is for this very name, or else one with a wildcard. The first pair
	// serves all other names, and clients that ask for none.
	Pairs []Pair
	// ClientCAFile: if set, clients need a certificate by one of its authorities.
	ClientCAFile string
	// AllowSAN are patterns of names; if there are any, a client's certificate needs a
	// name that is like one of them.
	AllowSAN []string
	// MinVersion and MaxVersion are "1.2" or "1.3"; empty they are the oldest and the newest.
	MinVersion, MaxVersion string
	// CipherSuites are those of TLS 1.2 to take; none: those that Go holds good.
	CipherSuites []string
	// ALPN are the protocols to choose from, the preferred first.
	ALPN []string
}

// Server makes the configuration for the server's side. It may be used by several
// goroutines at once.
type Server struct {
	options ServerOptions
	allowed allowed
	wrong   error            // of options
	now     func() time.Time // nil: time.Now; the tests'
	// What the files held at one time. The keys of its tickets are of that time, too:
	// crypto/tls keeps them in the configuration. So a session that began with other
	// authorities, or in a Server with another AllowSAN, is not resumed.
	kept kept[tls.Config]
}

// NewServer reads nothing yet. Until Follow, the files are read for connections, once a second
// at most.
func NewServer(o ServerOptions) *Server {
	s := &Server{options: o}
	s.allowed, s.wrong = parseAllowed(o.AllowSAN)
	s.kept.make = s.load
	for _, p := range o.Pairs {
		s.kept.files = append(s.kept.files, p.CertFile, p.KeyFile)
	}
	if o.ClientCAFile != "" {
		s.kept.files = append(s.kept.files, o.ClientCAFile)
	}
	return s
}

// Read does what the Read of Client does.
func (s *Server) Read() { s.kept.prepare() }

// Follow does what the Follow of Client does.
func (s *Server) Follow(by *follow.Follower, report func(error)) error {
	return s.kept.follow(by, report)
}

// Stop ends Follow. It may be called more than once.
func (s *Server) Stop() { s.kept.stop() }

// Check returns why the files are unusable now, or nil.
func (s *Server) Check() error {
	_, err := s.kept.get()
	return err
}

// Config returns the configuration for the handshakes that begin now. As long as the files
// hold the same it is the same one, so that sessions are resumed; it must not be changed,
// nor returned by a GetConfigForClient, for which crypto/tls takes the tickets' keys of
// another. A client that is not let in gets the alert bad_certificate, and the handshake's
// error is a *SANError, or a *LargeError.
func (s *Server) Config() (*tls.Config, error) { return s.kept.get() }

// User returns the name by which the client of a connection was let in; empty: it has shown
// no certificate, or one without a name that counts.
func (s *Server) User(c tls.ConnectionState) string {
	if len(c.PeerCertificates) == 0 {
		return ""
	}
	user, _ := s.allowed.user(c.PeerCertificates[0]) // verify has seen the error
	return user
}

// Certificates are those that are in use, in the order of the pairs. There is none
// where they cannot be read.
func (s *Server) Certificates() []Certificate {
	now, err := s.kept.get()
	if err != nil {
		return nil
	}
	var out []Certificate
	for i, c := range now.Certificates {
		out = append(out, Certificate{File: s.options.Pairs[i].CertFile, NotAfter: notAfter(c)})
	}
	return out
}

func (s *Server) load(r reading) (*tls.Config, error) {
	o := s.options
	if s.wrong != nil {
		return nil, s.wrong
	}
	if len(o.Pairs) == 0 {
		return nil, errors.New("no certificate")
	}
	least, most, err := versionRange(o.MinVersion, o.MaxVersion)
	if err != nil {
		return nil, err
	}
	c := &tls.Config{Time: s.now, MinVersion: least, MaxVersion: most, NextProtos: o.ALPN}
	if c.CipherSuites, err = suiteIDs(o.CipherSuites); err != nil {
		return nil, err
	}
	for _, p := range o.Pairs {
		pair, err := r.keyPair(p.CertFile, p.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("cert_file and key_file: %w", err)
		}
		c.Certificates = append(c.Certificates, pair)
	}
	c.GetCertificate = certificateFor(c.Certificates)
	if o.ClientCAFile == "" {
		return c, nil
	}
	if c.ClientCAs, err = r.pool(o.ClientCAFile); err != nil {
		return nil, fmt.Errorf("client_ca_file: %w", err)
	}
	c.ClientAuth = tls.RequireAndVerifyClientCert
	c.VerifyConnection = s.allowed.verify
	c.WrapSession, c.UnwrapSession = wrapSession(c), c.DecryptTicket
	return c, nil
}

// verify is for VerifyConnection, which is asked of resumed sessions, too, as
// VerifyPeerCertificate is not.
func (a allowed) verify(c tls.ConnectionState) error {
	if len(c.PeerCertificates) == 0 {
		return errors.New("the client has shown no certificate")
	}
	if !c.DidResume { // a ticket holds what was small enough
		if size := identitySize(c); size > maxIdentity {
			return &LargeError{size}
		}
	}
	_, err := a.user(c.PeerCertificates[0])
	return err
}

// certificateFor prefers the certificate for the very name that a client asks for to one
// with a wildcard. crypto/tls, which takes the first that will do, goes on where it knows
// none.
func certificateFor(all []tls.Certificate) func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	if len(all) == 1 {
		return nil
	}
	return func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		name := strings.ToLower(hello.ServerName)
		for i := range all {
			if slices.Contains(namesOf(all[i].Leaf), name) && hello.SupportsCertificate(&all[i]) == nil {
				return &all[i], nil
			}
		}
		return nil, nil
	}
}

// maxTicket bounds the certificates that a ticket holds, in bytes: with all of a ticket
// the next ClientHello has to stay within what a server reads of one, and crypto/tls fails
// to write a ticket of 64 KiB.
const maxTicket = 8 << 10

// wrapSession gives a client whose certificates are too many for a ticket one that nothing
// is resumed with: a handshake cannot do without.
func wrapSession(c *tls.Config) func(tls.ConnectionState, *tls.SessionState) ([]byte, error) {
	return func(conn tls.ConnectionState, session *tls.SessionState) ([]byte, error) {
		size := 0
		for _, cert := range conn.PeerCertificates {
			size += len(cert.Raw)
		}
		for _, chain := range conn.VerifiedChains {
			for _, cert := range chain[1:] {
				size += len(cert.Raw)
			}
		}
		if size > maxTicket {
			return []byte(rand.Text()), nil
		}
		return c.EncryptTicket(conn, session)
	}
}
