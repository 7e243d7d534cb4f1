package tlsconf

import (
	"crypto/tls"
	"errors"
	"fmt"

	"github.com/tunneld/tunneld/internal/follow"
)

// Pair names a certificate chain and its private key.
type Pair struct{ CertFile, KeyFile string }

// ServerOptions is the server's side of TLS. At least one pair is required.
type ServerOptions struct {
	// Pairs are chosen from by the name that the client asks for (RFC 6066, section
	// 3); the first one serves any other.
	Pairs []Pair
	// ClientCAFile: if set, clients need a certificate by one of its authorities.
	ClientCAFile string
	// MinVersion and MaxVersion are "1.2" or "1.3"; empty they are the oldest and the newest.
	MinVersion, MaxVersion string
	// ALPN are the protocols to choose from, the preferred first.
	ALPN []string
}

// Server makes the configuration for the server's side. It may be used by several
// goroutines at once.
type Server struct {
	options ServerOptions
	kept    kept[tls.Config]
}

// NewServer reads nothing yet. Until Follow, the files are read for each connection.
func NewServer(o ServerOptions) *Server {
	s := &Server{options: o}
	s.kept.make = s.load
	for _, p := range o.Pairs {
		s.kept.files = append(s.kept.files, p.CertFile, p.KeyFile)
	}
	if o.ClientCAFile != "" {
		s.kept.files = append(s.kept.files, o.ClientCAFile)
	}
	return s
}

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

// Config returns a configuration by which each handshake takes the newest of the
// followed files. It is the caller's.
func (s *Server) Config() *tls.Config {
	return &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return s.kept.get() }}
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
	if len(o.Pairs) == 0 {
		return nil, errors.New("no certificate")
	}
	least, most, err := versionRange(o.MinVersion, o.MaxVersion)
	if err != nil {
		return nil, err
	}
	c := &tls.Config{MinVersion: least, MaxVersion: most, NextProtos: o.ALPN}
	for _, p := range o.Pairs {
		pair, err := r.keyPair(p.CertFile, p.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("cert_file and key_file: %w", err)
		}
		c.Certificates = append(c.Certificates, pair)
	}
	if o.ClientCAFile != "" {
		if c.ClientCAs, err = r.pool(o.ClientCAFile); err != nil {
			return nil, fmt.Errorf("client_ca_file: %w", err)
		}
		c.ClientAuth = tls.RequireAndVerifyClientCert
		// A ticket would outlive a change of the authorities.
		c.SessionTicketsDisabled = true
	}
	return c, nil
}
