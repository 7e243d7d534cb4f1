// Package sohtemu emulates a SOHT server, as a far end for tests, the demo and work
// offline. It answers like the original Java server, and has a switch for everything
// that can go wrong. It serves this machine alone, and connects to loopback addresses and
// to what its hosts map.
package sohtemu

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tunneld/tunneld/internal/emu"
)

// DefaultPath is where the service answers.
const DefaultPath = "/soht/service"

// Options say what to emulate. The zero value serves both modes over http,
// without a login, for every target on the loopback interface.
type Options struct {
	// Address is where it listens, "host:port" of this machine alone; empty: a
	// free port of 127.0.0.1.
	Address string
	// Path is where the service answers; empty: DefaultPath.
	Path string
	// Users are the passwords by user name; empty: nobody is asked for one.
	Users map[string]string
	// TLS serves https with this configuration.
	TLS *tls.Config
	// Hosts maps a target as the client names it, "host:port" or "host" for
	// every port of it, to its backend ("host:port", or "host" to keep the port).
	// What is not in it and not loopback is an unknown host.
	Hosts map[string]string
	// FirstID is the first connection's id.
	FirstID int
	// FormLimit is how many encoded bytes a form may have; 0: 200,000.
	FormLimit int
	// IdlePoll is how long a readwrite waits for data; 0: 100 ms.
	IdlePoll time.Duration
	// Threads is how many requests are served at a time; 0: 200, which is what
	// containers come with. All others wait, and a read keeps its thread until
	// the target ends, the id is closed, or data for a client that is gone comes.
	Threads int
	// Container is whose way of answering it has.
	Container Container
	// Log takes what happens to each tunnel, at level debug and without logins;
	// nil: nowhere.
	Log *slog.Logger
	// Faults at the start; see SetFaults.
	Faults Faults
	// Observe is called with each request that has a form, by many goroutines at
	// once.
	Observe func(Form)
}

// Container is a servlet container, the original server's surroundings.
type Container int

const (
	// Tomcat answers a readwrite, and with an error, in chunks.
	Tomcat Container = iota
	// Jetty does so with a body that ends with its connection, which HTTP/1.1
	// allows (RFC 9112, section 6.3).
	Jetty
)

// Stats are the server's counts since its start.
type Stats struct {
	// Requests by action; "GET" for those.
	Requests map[string]int
	// HTTPConnections is how many were accepted.
	HTTPConnections int
	// Open is how many ids are in use now.
	Open int
	// Threads is how many requests are being served now.
	Threads int
	// WritesInFlight is the most writes that one id ever had at a time.
	WritesInFlight int
}

// Server is a running emulation.
type Server struct {
	options  Options
	listener net.Listener
	http     *http.Server
	serving  sync.WaitGroup // the accept loop
	accepted sync.WaitGroup // HTTP connections; their goroutines end last
	threads  chan struct{}  // an element for each request that is being served

	mu     sync.Mutex
	closed bool
	conns  map[int]*connection
	next   int
	faults Faults
	since  map[string]int
	stats  Stats
}

// connection is one tunnelled connection.
type connection struct {
	target *net.TCPConn
	poll   sync.Mutex  // one readwrite at a time
	broken atomic.Bool // a write failed
	writes int         // in flight; under the server's mu
}

// Start listens and serves until Close.
func Start(o Options) (*Server, error) {
	if o.Path == "" {
		o.Path = DefaultPath
	}
	if o.FormLimit == 0 {
		o.FormLimit = 200_000
	}
	if o.IdlePoll == 0 {
		o.IdlePoll = 100 * time.Millisecond
	}
	if o.Threads == 0 {
		o.Threads = 200
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	var l net.Listener
	l, err := emu.Listen(o.Address)
	if err != nil {
		return nil, fmt.Errorf("start soht emulation: %w", err)
	}
	s := &Server{
		options:  o,
		listener: l,
		conns:    make(map[int]*connection),
		threads:  make(chan struct{}, o.Threads),
		next:     o.FirstID,
		faults:   o.Faults,
		since:    make(map[string]int),
		stats:    Stats{Requests: make(map[string]int)},
	}
	s.http = &http.Server{
		Handler:           http.HandlerFunc(s.serve),
		ReadHeaderTimeout: 10 * time.Second,
		ErrorLog:          log.New(io.Discard, "", 0),
		ConnState: func(c net.Conn, state http.ConnState) {
			switch state {
			case http.StateIdle:
				if s.currentFaults().HangUp {
					_ = c.Close()
				}
			case http.StateNew:
				s.accepted.Add(1)
				s.mu.Lock()
				s.stats.HTTPConnections++
				s.mu.Unlock()
			case http.StateClosed:
				s.accepted.Done()
			}
		},
	}
	if o.TLS != nil {
		l = tls.NewListener(l, o.TLS)
	}
	s.serving.Go(func() { _ = s.http.Serve(l) })
	return s, nil
}

// Addr returns the server's address, "host:port".
func (s *Server) Addr() string { return s.listener.Addr().String() }

// URL returns what the upstream's url is to be set to.
func (s *Server) URL() string {
	scheme := "http"
	if s.options.TLS != nil {
		scheme = "https"
	}
	return scheme + "://" + s.Addr() + s.options.Path
}

// PlainURL returns the address of a plain download of all that target
// ("host:port", on the loopback interface) sends: what a tunnel's speed is
// measured against.
func (s *Server) PlainURL(target string) string {
	return s.URL() + "/plain?target=" + target
}

// Stats returns the counts.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.stats
	st.Requests = maps.Clone(s.stats.Requests)
	st.Open = len(s.conns)
	st.Threads = len(s.threads)
	return st
}

// Close ends every connection and returns once all goroutines have.
func (s *Server) Close() error {
	s.mu.Lock()
	s.closed = true
	for id, c := range s.conns {
		_ = c.target.Close()
		delete(s.conns, id)
	}
	s.mu.Unlock()
	err := s.http.Close()
	s.serving.Wait()
	s.accepted.Wait()
	return err
}

// add gives a connection its id.
func (s *Server) add(target *net.TCPConn) (int, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return 0, false
	}
	id := s.next
	s.next++
	s.conns[id] = &connection{target: target}
	return id, true
}

// lookup returns nil for an id that is closed or unknown.
func (s *Server) lookup(id int) *connection {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.faults.ForgetIDs {
		return nil
	}
	return s.conns[id]
}

// remove closes a connection and forgets its id.
func (s *Server) remove(id int) {
	s.mu.Lock()
	c := s.conns[id]
	delete(s.conns, id)
	s.mu.Unlock()
	if c != nil {
		s.options.Log.Debug("closed", "id", id)
		_ = c.target.Close()
	}
}

// errUnknownHost has the text that Java's exception has: the name alone.
type errUnknownHost string

func (e errUnknownHost) Error() string { return string(e) }

// dial connects to a target as the client named it.
func (s *Server) dial(ctx context.Context, host, port string) (*net.TCPConn, error) {
	to, mapped := s.options.Hosts[net.JoinHostPort(host, port)]
	if !mapped {
		to, mapped = s.options.Hosts[host]
	}
	if !mapped {
		to = host
	}
	if h, p, err := net.SplitHostPort(to); err == nil {
		to, port = h, p
	}
	if to == "localhost" {
		to = "127.0.0.1"
	}
	if ip := net.ParseIP(to); !mapped && (ip == nil || !ip.IsLoopback()) {
		return nil, errUnknownHost(host)
	}
	c, err := (&net.Dialer{Timeout: 10 * time.Second}).DialContext(ctx, "tcp", net.JoinHostPort(to, port))
	var unknown *net.DNSError
	switch {
	case errors.As(err, &unknown):
		return nil, errUnknownHost(host)
	case err != nil:
		return nil, err
	}
	return c.(*net.TCPConn), nil
}
