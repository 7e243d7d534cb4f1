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
)

// metricsServer serves the metrics and the health of the daemon, on one or several
// sockets.
type metricsServer struct {
	http    *http.Server
	serving sync.WaitGroup
}

// metricsSocket is a socket of it.
type metricsSocket struct {
	claim
	engine *Engine
	ln     net.Listener
}

func (m *metricsSocket) bound() place { return placeOf(m.ln.Addr()) }

func (m *metricsSocket) inPlace() bool { return true }

func (m *metricsSocket) serve() {
	server, ln := m.engine.metricsServer, m.ln
	// It ends by the close of the socket or of the server, which has its error.
	server.serving.Go(func() { _ = server.http.Serve(ln) })
}

func (m *metricsSocket) adapt() error { return nil }

func (m *metricsSocket) close() error { return unlessClosed(m.ln.Close()) }

func (m *metricsSocket) rebind(ctx context.Context) error {
	ln, err := listenTCP(ctx, m.bound().addr)
	if err == nil {
		m.ln = ln
	}
	return err
}

func (m *metricsSocket) lose() {} // nobody is told where the metrics are

func (m *metricsSocket) tell(serves bool) {
	what := "serving metrics"
	if !serves {
		what = "no longer serving metrics"
	}
	m.engine.log.Info(what, "address", m.bound().String())
}

// unlessClosed drops an error that says that a socket is closed already: the server
// and the table of sockets both close it.
func unlessClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// metricsGrace is what a scrape under way gets when its server is closed.
const metricsGrace = 5 * time.Second

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

// replaceSockets makes t the table of what the daemon listens on. The server of the
// metrics lives as long as one of its sockets.
func (e *Engine) replaceSockets(t socketTable) {
	old, before, now := e.metricsServer, e.sockets[metricsBlock], t[metricsBlock]
	e.sockets = t
	if slices.ContainsFunc(now, func(s boundSocket) bool { return slices.Contains(before, s) }) {
		return
	}
	e.metricsServer = nil
	if len(now) > 0 {
		e.metricsServer = e.newMetricsServer()
	}
	if old != nil {
		e.retiring.Go(func() {
			if err := old.close(); err != nil {
				e.log.Warn("close of the metrics server", "err", err)
			}
		})
	}
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
	if err = unlessClosed(err); err != nil {
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
