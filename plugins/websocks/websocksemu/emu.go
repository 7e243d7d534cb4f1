// Package websocksemu emulates a WebSocks server, as a far end for tests, the demo and
// work offline. It behaves like the original server, oddities included, and has a switch
// for every failure. It serves this machine alone, connects to loopback addresses and to
// what its targets map, and is not for production.
package websocksemu

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tunneld/tunneld/internal/emu"
)

// EchoTarget is a target that every server knows: it sends back what it gets,
// and ends its direction once the client has ended its own.
const EchoTarget = "echo.internal:7"

// Options are what a server is started with. The zero value is a ws:// server
// that lets everybody in.
type Options struct {
	// Address is where it listens, "host:port" of this machine alone; empty: a
	// free port of 127.0.0.1.
	Address string
	// TLS makes it a wss:// server: see Server.CAFile.
	TLS bool
	// Names are further DNS names and IP literals of the certificate, besides
	// localhost and 127.0.0.1.
	Names []string
	// Users are the passwords by user name; nil: nobody is asked for one.
	Users map[string]string
	// Targets maps what a client may ask for, "host:port", to the host and port
	// of its backend. A loopback address needs no entry, and neither does
	// localhost, which is 127.0.0.1; other addresses cannot be reached, and other
	// names are not resolved.
	Targets map[string]string
	// Idle is how long a connection may be silent before its tunnel is up, and
	// how long one is kept that a close_notify broke; 0: 15 minutes, which is
	// the original's.
	Idle time.Duration
	// Now is the server's clock; nil: time.Now.
	Now func() time.Time
	// Log takes what happens to each connection, at level debug and without
	// passwords; nil: nowhere.
	Log *slog.Logger
	// Faults is the behaviour to begin with; SetFaults changes it.
	Faults Faults
}

// Server is a running server. Its methods may be called by several goroutines
// at once.
type Server struct {
	options  Options
	listener *net.TCPListener
	echo     *net.TCPListener
	identity *identity // nil over ws://
	faults   atomic.Pointer[Faults]
	idle     atomic.Int64  // Options.Idle
	done     chan struct{} // closed by Close
	serving  emu.Server    // with the connections to the targets

	mu        sync.Mutex
	closed    bool
	exchanges []*Exchange
}

// Start runs a server until Close.
func Start(o Options) (*Server, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	for target, backend := range o.Targets {
		if err := emu.CheckHostPort(target, backend); err != nil {
			return nil, fmt.Errorf("start websocks emulator: map %q: %w", target, err)
		}
	}
	s := &Server{options: o, done: make(chan struct{})}
	s.SetFaults(o.Faults)
	s.idle.Store(int64(cmp.Or(o.Idle, 15*time.Minute)))
	if o.TLS {
		var err error
		if s.identity, err = newIdentity(o.Names); err != nil {
			return nil, fmt.Errorf("start websocks emulator: %w", err)
		}
	}
	var err error
	if s.echo, err = emu.Listen(""); err == nil {
		s.serving.Accept(s.echo, echo)
		s.listener, err = emu.Listen(o.Address)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start websocks emulator: %w", err), s.Close())
	}
	s.serving.Accept(s.listener, s.serve)
	return s, nil
}

// Close ends the server and its connections, and returns once nothing of it is
// left. It may be called more than once.
func (s *Server) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	close(s.done)
	s.mu.Unlock()
	err := s.serving.Close()
	if s.identity != nil {
		err = errors.Join(err, os.RemoveAll(s.identity.dir))
	}
	return err
}

// URL returns "ws://127.0.0.1:port", or with wss://.
func (s *Server) URL() string {
	scheme := "ws://"
	if s.identity != nil {
		scheme = "wss://"
	}
	return scheme + s.Address()
}

// Address returns the host and port that the server listens on.
func (s *Server) Address() string { return s.listener.Addr().String() }

// CAFile returns the path of a PEM file with the authority of the server's
// certificate, or an empty string over ws://. Close removes it.
func (s *Server) CAFile() string {
	if s.identity == nil {
		return ""
	}
	return s.identity.CAFile
}

// SetFaults changes the behaviour towards connections that are accepted from
// now on.
func (s *Server) SetFaults(f Faults) { s.faults.Store(&f) }

// ResetAll resets every connection of the server, those to the targets
// included.
func (s *Server) ResetAll() { s.serving.Reset() }

// Exchanges returns what was seen on each connection of late, the newest last.
func (s *Server) Exchanges() []Exchange {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []Exchange
	for _, e := range s.exchanges {
		c := *e
		c.Reads = slices.Clone(e.Reads)
		all = append(all, c)
	}
	return all
}

// maxExchanges bounds the memory of a server that runs for long.
const maxExchanges = 256

func (s *Server) newExchange() *Exchange {
	s.mu.Lock()
	defer s.mu.Unlock()
	return emu.Remember(&s.exchanges, maxExchanges)
}

// expect gives a connection's peer until the idle time from now.
func (s *Server) expect(c *net.TCPConn) {
	_ = c.SetDeadline(time.Now().Add(time.Duration(s.idle.Load())))
}

// note changes an exchange under the lock that Exchanges reads it under.
func (s *Server) note(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

// reset makes c's end a RST, which no peer takes for a clean one.
func reset(c *net.TCPConn) {
	_ = c.SetLinger(0)
	_ = c.Close()
}
