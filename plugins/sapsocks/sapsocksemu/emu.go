// Package sapsocksemu is SAP BTP Connectivity in one process on loopback: the
// SOCKS5 proxy with method 0x80, the Cloud Connectors behind it and the token
// service. It serves tests, "tunneld demo" and work without a network, and
// plays every failure on demand.
//
// It serves this machine alone, and connects to what its connectors map. Its tokens are
// worth nothing elsewhere.
package sapsocksemu

import (
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/tunneld/tunneld/internal/emu"
)

// Grant is how a client proves itself to the token service.
type Grant string

// The grants.
const (
	// GrantSecret is a client secret at /oauth/token.
	GrantSecret Grant = "secret"
	// GrantX509 is a client certificate at /oauth/token, over mutual TLS.
	GrantX509 Grant = "x509"
	// GrantIAS is a client secret and the resource at /oauth2/token, as SAP
	// Cloud Identity Services want them.
	GrantIAS Grant = "ias"
)

// Options say what is emulated. The zero value is a proxy with authentication, a
// token service for a client secret and no Cloud Connector.
type Options struct {
	// Address is where the proxy listens, TokenAddress where the token service does,
	// "host:port" of this machine alone; default "127.0.0.1:0".
	Address, TokenAddress string
	// Trusted is the proxy's trusted mode: it takes method 00 alone.
	Trusted bool
	// Connectors are the Cloud Connectors that are connected: by location id,
	// "" being the one without, the mapping of each from virtual host and port
	// ("orders-db:5432") to the host and port of its backend.
	Connectors map[string]map[string]string
	// Grant is GrantSecret by default.
	Grant Grant
	// TLS has the token service speak TLS for other grants than GrantX509 as well.
	TLS bool
	// ClientID and ClientSecret are what the token service takes; by default an
	// id as SAP forms them and a random secret.
	ClientID, ClientSecret string
	// TokenLife is how long a token is good; 0 means an hour. Whole seconds.
	TokenLife time.Duration
	// TokenSize is how long a token is at least, in bytes.
	TokenSize int
	// Log takes what happens to each connection and request, at level debug and
	// without tokens and secrets; default: nowhere.
	Log *slog.Logger
	// Faults is what goes wrong from the start; see SetFaults.
	Faults Faults
}

// Server is a running emulator. Its methods may be called by several goroutines
// at once.
type Server struct {
	options Options
	log     *slog.Logger
	key     []byte    // signs tokens
	tls     *identity // nil: the token service speaks plain HTTP
	proxy   *net.TCPListener
	web     *net.TCPListener
	http    *http.Server
	serving emu.Server // of the proxy, with the connections to the backends
	closing chan struct{}
	wg      sync.WaitGroup // of the token service

	mu         sync.Mutex
	faults     Faults
	connectors map[string]map[string]string
	epoch      int // tokens of an earlier one are revoked
	issued     int
	seen       []*Conversation
	closed     bool
}

// Conversation is what one client said to the proxy, as far as it came.
type Conversation struct {
	// Methods are those that it offered.
	Methods []byte
	// Token is the JWT that it sent.
	Token string
	// Location is the location id, decoded.
	Location string
	// Target is what it asked for, "host:port".
	Target string
	// Reply is a refusal of the request, or of what came before it (REP of RFC 1928);
	// 0: there was none.
	Reply byte
}

// maxSeen bounds the conversations that are remembered.
const maxSeen = 1024

// Start runs an emulator until Close.
func Start(o Options) (*Server, error) {
	if o.Grant == "" {
		o.Grant = GrantSecret
	}
	if o.ClientID == "" {
		o.ClientID = "sb-emulated!b42|connectivity!b7"
	}
	if o.ClientSecret == "" {
		o.ClientSecret = rand.Text()
	}
	if o.TokenLife == 0 {
		o.TokenLife = time.Hour
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{
		options:    o,
		log:        o.Log,
		key:        []byte(rand.Text()),
		closing:    make(chan struct{}),
		faults:     o.Faults,
		connectors: map[string]map[string]string{},
	}
	for location, mappings := range o.Connectors {
		if err := s.SetConnector(location, mappings); err != nil {
			return nil, err
		}
	}
	if err := s.listen(); err != nil {
		return nil, fmt.Errorf("start SAP emulator: %w", err)
	}
	return s, nil
}

func (s *Server) listen() error {
	var err error
	if s.options.TLS || s.options.Grant == GrantX509 {
		if s.tls, err = newIdentity(s.options.ClientID); err != nil {
			return err
		}
	}
	if s.proxy, err = emu.Listen(s.options.Address); err != nil {
		return err
	}
	if s.web, err = emu.Listen(s.options.TokenAddress); err != nil {
		return errors.Join(err, s.proxy.Close())
	}
	s.http = s.tokenServer()
	s.serving.Accept(s.proxy, s.serve)
	s.wg.Go(func() {
		// Both return with ErrServerClosed at Close.
		if s.tls != nil {
			_ = s.http.ServeTLS(s.web, "", "")
		} else {
			_ = s.http.Serve(s.web)
		}
	})
	return nil
}

// Close ends all connections and waits for every goroutine.
func (s *Server) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	close(s.closing)
	s.mu.Unlock()
	err := errors.Join(s.serving.Close(), s.http.Close())
	s.wg.Wait()
	return err
}

// SetConnector connects the Cloud Connector of a location id with its mappings,
// or disconnects it where mappings is nil. Tunnels live on.
func (s *Server) SetConnector(location string, mappings map[string]string) error {
	own := map[string]string{}
	for virtual, real := range mappings {
		if err := emu.CheckHostPort(virtual, real); err != nil {
			return fmt.Errorf("map %q: %w", virtual, err)
		}
		own[virtual] = real
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if mappings == nil {
		delete(s.connectors, location)
	} else {
		s.connectors[location] = own
	}
	return nil
}

// SetFaults replaces what goes wrong, from the next step of each conversation.
func (s *Server) SetFaults(f Faults) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = f
}

// RevokeTokens makes the proxy refuse all tokens issued so far.
func (s *Server) RevokeTokens() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.epoch++
}

// TokensIssued returns how many tokens the token service has issued.
func (s *Server) TokensIssued() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.issued
}

// Conversations returns the last conversations with the proxy as far as they
// have come, oldest first. What a client was answered is in them already.
func (s *Server) Conversations() []Conversation {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Conversation, len(s.seen))
	for i, c := range s.seen {
		out[i] = *c
	}
	return out
}

// begin adds a conversation.
func (s *Server) begin() *Conversation {
	s.mu.Lock()
	defer s.mu.Unlock()
	return emu.Remember(&s.seen, maxSeen)
}

func (s *Server) now() Faults {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.faults
}
