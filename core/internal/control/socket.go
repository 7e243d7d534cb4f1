package control

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

// retireTimeout bounds the requests that are under way when the socket moves.
const retireTimeout = time.Minute

// Server serves a daemon's control socket, also over reloads that move it. Its
// methods may be called by several goroutines, but the ones that Prepare returns
// belong to their caller.
type Server struct {
	daemon Daemon
	log    *slog.Logger

	open context.Context // until Close
	end  context.CancelFunc
	wg   sync.WaitGroup

	mu      sync.Mutex // also serializes wg.Go and Close
	current *serving
}

// serving is a socket that is served.
type serving struct {
	address string
	ln      *listener
	http    *http.Server
}

// NewServer returns a server that has no socket yet. Clients that misbehave are
// logged to log, at level debug.
func NewServer(d Daemon, log *slog.Logger) *Server {
	s := &Server{daemon: d, log: log}
	s.open, s.end = context.WithCancel(context.Background())
	return s
}

// Prepare makes the socket for an address, as Listen does. If that is the one that
// is served, and the socket is still in its place, it does nothing; an empty
// address means no socket. The caller calls commit or undo, once: commit serves the
// new socket and removes the old, whose requests under way are served to their end;
// undo removes the new one.
func (s *Server) Prepare(address string) (commit, undo func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open.Err() != nil {
		return nil, nil, http.ErrServerClosed
	}
	if now := s.current; now != nil && now.address == address && now.ln.place.Held() || now == nil && address == "" {
		return func() {}, func() {}, nil
	}
	var next *serving
	if address != "" {
		ln, err := bind(address)
		if err != nil {
			return nil, nil, err
		}
		next = &serving{address: address, ln: ln, http: newHTTP(s.daemon, s.log)}
	}
	return func() { s.replace(next) }, func() {
		if next != nil {
			s.warn("undo of the control socket", next.ln.Close())
		}
	}, nil
}

func newHTTP(d Daemon, log *slog.Logger) *http.Server {
	h := &http.Server{
		Handler:           Handler(d),
		ReadHeaderTimeout: ioTimeout,
		ReadTimeout:       ioTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	h.SetKeepAlivesEnabled(false)
	return h
}

func (s *Server) replace(next *serving) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open.Err() != nil {
		if next != nil {
			s.warn("close of the control socket", next.ln.Close())
		}
		return
	}
	old := s.current
	s.current = next
	if next != nil {
		s.wg.Go(func() { s.warnUnlessClosed(next.http.Serve(next.ln)) })
	}
	if old != nil {
		s.warn("close of the control socket", old.ln.Close())
		s.wg.Go(func() { s.retire(old) })
	}
}

// retire serves the requests under way to their end: the reload that moves the
// socket is one of them.
func (s *Server) retire(old *serving) {
	ctx, cancel := context.WithTimeout(s.open, retireTimeout)
	defer cancel()
	if err := old.http.Shutdown(ctx); err != nil {
		s.warnUnlessClosed(old.http.Close())
	}
}

func (s *Server) warn(what string, err error) {
	if err != nil {
		s.log.Warn(what, "err", err)
	}
}

func (s *Server) warnUnlessClosed(err error) {
	if !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
		s.warn("control socket", err)
	}
}

// Close removes the socket and breaks off the requests under way: the contexts of
// their reloads end. It does not wait until the daemon's methods have returned,
// so that it may be called with a lock that they want.
func (s *Server) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.end()
	if now := s.current; now != nil {
		s.current = nil
		s.warnUnlessClosed(errors.Join(now.ln.Close(), now.http.Close()))
	}
	s.wg.Wait()
}
