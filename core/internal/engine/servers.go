package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/tunneld/tunneld/core/internal/config"
	"github.com/tunneld/tunneld/core/internal/control"
)

// metricsServer serves the metrics and the health of the daemon, on one or several
// sockets. A reload that leaves one of these alone leaves the server alone.
type metricsServer struct {
	sockets []*metricsSocket
	http    *http.Server
	serving sync.WaitGroup
}

// metricsSocket is a socket of it.
type metricsSocket struct {
	*spot
	ln net.Listener
}

func (m *metricsSocket) bound() netip.AddrPort { return unmapped(m.ln.Addr().(*net.TCPAddr)) }

func (m *metricsSocket) vacate() error {
	m.closed = true
	return m.ln.Close()
}

func (m *metricsSocket) discard() error { return m.ln.Close() }

// metricsGrace is what a scrape under way gets when its server is closed.
const metricsGrace = 5 * time.Second

// bindControl binds the control socket, as cfg has it.
func (e *Engine) bindControl(b *binding, cfg *config.Config) config.Diagnostics {
	address := control.Address(cfg.Control.Address, cfg.Daemon.RunDir)
	commit, undo, err := e.control.Prepare(address)
	switch {
	case err == nil:
		b.commitControl, b.undoControl = commit, undo
	case cfg.Control.Address != "":
		return config.Diagnostics{obstacle(cfg, "control", "address", "the control socket cannot be bound", err.Error())}
	default:
		// Nobody asked for it.
		e.log.Warn("no control socket: tunneld reload and tunneld status will not find this daemon", "address", address, "err", err)
	}
	return nil
}

func listenTCP(ctx context.Context, address netip.AddrPort) (net.Listener, error) {
	return (&net.ListenConfig{}).Listen(ctx, "tcp", address.String())
}

// maxScrapes bounds the connections to the metrics: they are not among the slots,
// and whoever reaches the address could take all descriptors with them.
const maxScrapes = 64

// scrapes are the open connections to the metrics, the oldest first.
type scrapes struct {
	mu    sync.Mutex
	conns []net.Conn
}

// track closes the oldest connection for one too many: a scrape is short.
func (s *scrapes) track(c net.Conn, state http.ConnState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch state {
	case http.StateNew:
		s.conns = append(s.conns, c)
		if len(s.conns) > maxScrapes {
			_ = s.conns[0].Close() // whatever it returns, the connection is gone
			s.conns = slices.Delete(s.conns, 0, 1)
		}
	case http.StateClosed, http.StateHijacked:
		s.conns = slices.DeleteFunc(s.conns, func(open net.Conn) bool { return open == c })
	}
}

func (e *Engine) newMetricsServer() *metricsServer {
	return &metricsServer{http: &http.Server{
		ConnState:      new(scrapes).track,
		Handler:        e.metrics.Handler(),
		ReadTimeout:    10 * time.Second,
		WriteTimeout:   time.Minute,
		IdleTimeout:    2 * time.Minute, // a scrape a minute keeps its connection
		MaxHeaderBytes: 16 << 10,
		ErrorLog:       slog.NewLogLogger(e.log.Handler(), slog.LevelDebug),
	}}
}

// restoreMetrics serves the metrics where they were served.
func (e *Engine) restoreMetrics(ctx context.Context) {
	old := e.metricsServer
	lost := func(s *metricsSocket) bool {
		if !s.closed {
			return false
		}
		ln, err := listenTCP(ctx, s.bound())
		if err != nil {
			e.log.Error("the metrics are lost: their address cannot be bound again", "address", s.written, "err", err)
			return true
		}
		s.ln, s.closed = ln, false
		old.serve(s)
		return false
	}
	if old == nil {
		return
	}
	if old.sockets = slices.DeleteFunc(old.sockets, lost); len(old.sockets) == 0 {
		e.metricsServer = nil
		e.retireMetrics(old)
	}
}

// commitServers serves the new ones and closes those that are gone.
func (e *Engine) commitServers(b *binding) {
	b.commitControl()
	old := e.metricsServer
	before := old.all()
	stays := slices.ContainsFunc(b.metrics, func(s *metricsSocket) bool { return slices.Contains(before, s) })
	switch {
	case len(b.metrics) == 0:
		e.metricsServer = nil
	case !stays:
		e.metricsServer = e.newMetricsServer()
	}
	for _, s := range b.metrics {
		if !slices.Contains(before, s) {
			e.metricsServer.serve(s)
			e.log.Info("serving metrics", "address", s.bound().String())
		}
	}
	if m := e.metricsServer; m != nil {
		m.sockets = b.metrics
	}
	switch {
	case old == nil:
	case !stays:
		e.retireMetrics(old)
	default:
		for _, s := range before {
			if slices.Contains(b.metrics, s) || s.closed {
				continue
			}
			if err := s.ln.Close(); err != nil {
				e.log.Warn("close of a socket of the metrics", "address", s.bound().String(), "err", err)
			}
		}
	}
}

func (e *Engine) retireMetrics(old *metricsServer) {
	e.retiring.Go(func() {
		if err := old.close(); err != nil {
			e.log.Warn("close of the metrics server", "err", err)
		}
	})
}

// all are the server's sockets; none of no server.
func (m *metricsServer) all() []*metricsSocket {
	if m == nil {
		return nil
	}
	return m.sockets
}

func (m *metricsServer) serve(s *metricsSocket) {
	ln := s.ln
	// It ends by the close of the socket or of the server, which has its error.
	m.serving.Go(func() { _ = m.http.Serve(ln) })
}

// close ends the server; a scrape under way has metricsGrace.
func (m *metricsServer) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), metricsGrace)
	defer cancel()
	err := m.http.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		err = m.http.Close()
	}
	m.serving.Wait()
	if err != nil {
		return fmt.Errorf("close metrics server: %w", err)
	}
	return nil
}

// closeServers ends all of them.
func (e *Engine) closeServers() error {
	e.control.Close()
	if e.metricsServer == nil {
		return nil
	}
	return e.metricsServer.close()
}
