// Package azrelayemu emulates Azure Relay's Hybrid Connections: the service's side of
// connect, listen, accept and renew, with its tokens and its refusals, and a listener
// that forwards to TCP. It is for tests, the demo and work without a network. It has no
// HTTP requests over a relay, and stores nothing.
//
//	s, err := azrelayemu.Start(azrelayemu.Options{
//		Keys:    map[string]azrelayemu.Key{"send": {Value: "secret", Rights: azrelayemu.Send}},
//		Forward: []azrelayemu.Forward{{HybridConnection: "hc1", Target: "127.0.0.1:5432"}},
//	})
package azrelayemu

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/tunneld/tunneld/internal/emu"
	"github.com/tunneld/tunneld/plugins/azrelay/internal/sas"
)

const (
	// headTime bounds a client's TLS handshake and request.
	headTime = 10 * time.Second
	// maxHead bounds a request, in bytes.
	maxHead = 64 << 10
	// bufferSize is what a connection reads and writes at once, in bytes.
	bufferSize = 64 << 10
	// acceptPause is the wait after a failed accept, for descriptors to return.
	acceptPause = 50 * time.Millisecond
)

// Server is a running service. Its methods may be called by several goroutines.
type Server struct {
	options  Options
	listener net.Listener
	tls      *tls.Config // nil: plain
	ca       []byte
	own      string // the key of the built-in listeners
	log      *slog.Logger

	mu       sync.Mutex
	closed   bool
	faults   Faults
	peers    map[*peer]struct{}
	entities map[string]*entity
	pending  map[string]*rendezvous
	tunnels  map[*tunnel]struct{}

	forwards []*forwarder
	quit     chan struct{} // closed by Close
	wg       sync.WaitGroup
}

// Start opens the service and its built-in listeners, and returns once all of
// them are ready.
func Start(o Options) (*Server, error) {
	o, err := o.check()
	if err != nil {
		return nil, fmt.Errorf("start azrelay emulator: %w", err)
	}
	s := &Server{
		options: o, log: o.Log, faults: o.Faults, own: newID(),
		peers:    make(map[*peer]struct{}),
		entities: make(map[string]*entity),
		pending:  make(map[string]*rendezvous),
		tunnels:  make(map[*tunnel]struct{}),
		quit:     make(chan struct{}),
	}
	for path, h := range o.HybridConnections {
		s.entities[entityPath(path)] = &entity{path: entityPath(path), HybridConnection: h}
	}
	for _, f := range o.Forward {
		if p := entityPath(f.HybridConnection); s.entities[p] == nil {
			s.entities[p] = &entity{path: p}
		}
	}
	if o.TLS {
		if err := s.makeTLS(); err != nil {
			return nil, fmt.Errorf("start azrelay emulator: %w", err)
		}
	}
	if s.listener, err = emu.Listen(o.Address); err != nil {
		return nil, fmt.Errorf("start azrelay emulator: %w", err)
	}
	s.wg.Go(s.accept)
	for _, f := range o.Forward {
		fw, err := s.startForwarder(f)
		if err != nil {
			s.Close()
			return nil, fmt.Errorf("start azrelay emulator: listener of %q: %w", f.HybridConnection, err)
		}
		s.forwards = append(s.forwards, fw)
	}
	return s, nil
}

// makeTLS makes an authority for the run and a certificate for this machine's names and
// the namespace's.
func (s *Server) makeTLS() error {
	a, err := emu.NewAuthority()
	if err != nil {
		return err
	}
	var names []string
	if s.options.Namespace != "" {
		names = append(names, s.options.Namespace)
	}
	certificate, err := a.Server(names...)
	if err != nil {
		return err
	}
	s.ca = a.PEM()
	s.tls = &tls.Config{
		MinVersion: tls.VersionTLS12,
		// Frames are relayed whole: small first records would only cost.
		DynamicRecordSizingDisabled: true,
		Certificates:                []tls.Certificate{certificate},
	}
	return nil
}

// Addr returns "host:port".
func (s *Server) Addr() string { return s.listener.Addr().String() }

// URL returns "ws://host:port" or "wss://host:port", as the attribute endpoint
// of an upstream takes it.
func (s *Server) URL() string {
	if s.tls != nil {
		return "wss://" + s.Addr()
	}
	return "ws://" + s.Addr()
}

// CA returns the certificate of the authority to trust in PEM, nil without TLS.
func (s *Server) CA() []byte { return s.ca }

// SetFaults replaces the failures, for connections that begin from now on.
func (s *Server) SetFaults(f Faults) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = f
}

func (s *Server) currentFaults() Faults {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.faults
}

// Close ends the service and everything that goes through it, and returns when
// nothing of it runs any more.
func (s *Server) Close() {
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		close(s.quit)
	}
	for p := range s.peers {
		p.reset()
	}
	s.mu.Unlock()
	_ = s.listener.Close()
	for _, f := range s.forwards {
		f.close()
	}
	s.wg.Wait()
}

func (s *Server) accept() {
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			s.mu.Lock()
			closed := s.closed
			s.mu.Unlock()
			if closed {
				return
			}
			time.Sleep(acceptPause)
			continue
		}
		p := newPeer(conn, s.tls)
		s.mu.Lock()
		if s.closed {
			s.mu.Unlock()
			p.reset()
			return
		}
		s.peers[p] = struct{}{}
		s.wg.Go(func() { s.serve(p) })
		s.mu.Unlock()
	}
}

// serve owns p: one request, and what becomes of it.
func (s *Server) serve(p *peer) {
	defer func() {
		p.close()
		s.mu.Lock()
		delete(s.peers, p)
		s.mu.Unlock()
	}()
	_ = p.conn.SetDeadline(time.Now().Add(headTime))
	req, err := http.ReadRequest(p.br)
	if err != nil {
		s.log.Debug("request not read", "remote", p.conn.RemoteAddr().String(), "err", sas.Redact(err.Error()))
		return
	}
	p.head.N = math.MaxInt64
	_ = p.conn.SetDeadline(time.Time{})

	path, ok := strings.CutPrefix(req.URL.Path, "/$hc/")
	query := req.URL.Query()
	action := query.Get("sb-hc-action")
	s.log.Debug("request", "remote", p.conn.RemoteAddr().String(), "action", action, "path", path)
	if !ok || !strings.EqualFold(req.Header.Get("Upgrade"), "websocket") || req.Header.Get("Sec-WebSocket-Key") == "" {
		s.refuse(p, path, http.StatusBadRequest, "The request is not a WebSocket handshake for /$hc/")
		return
	}
	if action == "accept" {
		s.acceptRendezvous(p, req, path)
		return
	}
	e := s.entity(path)
	if e == nil {
		s.refuse(p, path, http.StatusNotFound, "Endpoint does not exist")
		return
	}
	switch action {
	case "connect":
		s.connect(p, req, e, path)
	case "listen":
		s.listen(p, req, e, path)
	default:
		s.refuse(p, path, http.StatusBadRequest, "The sb-hc-action is not known")
	}
}

// entity returns the hybrid connection that path names, with or without a
// suffix.
func (s *Server) entity(path string) *entity {
	s.mu.Lock()
	defer s.mu.Unlock()
	for p := entityPath(path); p != ""; {
		if e := s.entities[p]; e != nil {
			return e
		}
		p = p[:max(0, strings.LastIndexByte(p, '/'))]
	}
	return nil
}

// entityPath is a path as entities are found by: case does not matter.
func entityPath(path string) string { return strings.ToLower(strings.Trim(path, "/")) }

// peer is a client's connection.
type peer struct {
	socket net.Conn // TCP
	conn   net.Conn // TLS, or socket
	head   *io.LimitedReader
	br     *bufio.Reader

	mu     sync.Mutex // a whole frame towards the client
	bw     *bufio.Writer
	closed bool // a Close frame went out; nothing may follow
}

func newPeer(socket net.Conn, config *tls.Config) *peer {
	p := &peer{socket: socket, conn: socket}
	if config != nil {
		p.conn = tls.Server(socket, config)
	}
	p.head = &io.LimitedReader{R: p.conn, N: maxHead}
	p.br = bufio.NewReaderSize(p.head, bufferSize)
	p.bw = bufio.NewWriterSize(p.conn, bufferSize)
	return p
}

func (p *peer) close() { _ = p.conn.Close() }

// reset ends the connection so that the client cannot take it for a clean end.
func (p *peer) reset() {
	if tcp, ok := p.socket.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = p.socket.Close()
}
