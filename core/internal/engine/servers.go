package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/tunneld/tunneld/core/internal/config"
	"github.com/tunneld/tunneld/core/internal/control"
)

// metricsServer serves the metrics and the health of the daemon. A reload that
// leaves its address alone leaves it alone.
type metricsServer struct {
	address string // as configured
	ln      net.Listener
	http    *http.Server
	ended   chan struct{} // closed once it serves no more
	closed  bool          // by vacate
}

// metricsGrace is what a scrape under way gets when its server is closed.
const metricsGrace = 5 * time.Second

// bindServers binds the daemon's own servers, as cfg has them.
func (e *Engine) bindServers(ctx context.Context, b *binding, cfg *config.Config) config.Diagnostics {
	var diags config.Diagnostics
	switch address := cfg.Metrics.Address; {
	case address == "":
		b.metrics = nil
	case b.metrics == nil || b.metrics.address != address:
		var ln net.Listener
		err := b.inRoom(address, func() (err error) {
			ln, err = listenTCP(ctx, address)
			return err
		})
		if err != nil {
			diags = append(diags, cannotBind(cfg, "metrics", err))
			break
		}
		b.metrics = e.newMetricsServer(address, ln)
	}
	address := control.Address(cfg.Control.Address, cfg.Daemon.RunDir)
	commit, undo, err := e.control.Prepare(address)
	switch {
	case err == nil:
		b.commitControl, b.undoControl = commit, undo
	case cfg.Control.Address != "":
		diags = append(diags, obstacle(cfg, "control", "address", "the control socket cannot be bound", err.Error()))
	default:
		// Nobody asked for it.
		e.log.Warn("no control socket: tunneld reload and tunneld status will not find this daemon", "address", address, "err", err)
	}
	return diags
}

func listenTCP(ctx context.Context, address string) (net.Listener, error) {
	return (&net.ListenConfig{}).Listen(ctx, "tcp", address)
}

func (e *Engine) newMetricsServer(address string, ln net.Listener) *metricsServer {
	return &metricsServer{address: address, ln: ln, ended: make(chan struct{}), http: &http.Server{
		Handler:        e.metrics.Handler(),
		ReadTimeout:    10 * time.Second,
		WriteTimeout:   time.Minute,
		IdleTimeout:    2 * time.Minute, // a scrape a minute keeps its connection
		MaxHeaderBytes: 16 << 10,
		ErrorLog:       slog.NewLogLogger(e.log.Handler(), slog.LevelDebug),
	}}
}

// restoreMetrics serves the metrics where they were served.
func (e *Engine) restoreMetrics() {
	old := e.metricsServer
	e.metricsServer = nil
	// Also where the reload is to be broken off.
	ln, err := listenTCP(context.Background(), old.bound().String())
	if err != nil {
		e.log.Error("the metrics are lost: their address cannot be bound again", "address", old.address, "err", err)
	} else {
		e.metricsServer = e.newMetricsServer(old.address, ln)
		e.metricsServer.serve()
	}
	e.retireMetrics(old)
}

// commitServers serves the new ones and closes those that are gone.
func (e *Engine) commitServers(b *binding) {
	b.commitControl()
	old := e.metricsServer
	if old == b.metrics {
		return
	}
	e.metricsServer = b.metrics
	if m := b.metrics; m != nil {
		m.serve()
		e.log.Info("serving metrics", "address", m.ln.Addr().String())
	}
	if old != nil {
		e.retireMetrics(old)
	}
}

func (e *Engine) retireMetrics(old *metricsServer) {
	e.retiring.Go(func() {
		if err := old.close(); err != nil {
			e.log.Warn("close of the metrics server", "err", err)
		}
	})
}

// bound is the address that the system bound.
func (m *metricsServer) bound() netip.AddrPort { return m.ln.Addr().(*net.TCPAddr).AddrPort() }

func (m *metricsServer) vacate() error {
	m.closed = true
	return m.ln.Close()
}

func (m *metricsServer) serve() {
	go func() {
		defer close(m.ended)
		_ = m.http.Serve(m.ln) // it ends by close, which has its error
	}()
}

// close ends the server; a scrape under way has metricsGrace.
func (m *metricsServer) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), metricsGrace)
	defer cancel()
	err := m.http.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		err = m.http.Close()
	}
	<-m.ended
	if err != nil {
		return fmt.Errorf("close metrics server on %s: %w", m.address, err)
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
