package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"syscall"
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
}

// metricsGrace is what a scrape under way gets when its server is closed.
const metricsGrace = 5 * time.Second

// nextServers is the daemon's own servers of the next configuration.
type nextServers struct {
	metrics                    *metricsServer // nil: none
	madeRoom                   bool           // the old one of the metrics has closed its socket
	commitControl, undoControl func()
}

// prepareServers binds the servers of cfg. It is followed by commitServers or
// dropServers, unless it returns errors, where it has closed what it had bound.
func (e *Engine) prepareServers(ctx context.Context, cfg *config.Config) (*nextServers, config.Diagnostics) {
	next := &nextServers{metrics: e.metricsServer, commitControl: func() {}, undoControl: func() {}}
	var diags config.Diagnostics
	switch address := cfg.Metrics.Address; {
	case address == "":
		next.metrics = nil
	case next.metrics == nil || next.metrics.address != address:
		ln, err := listenTCP(ctx, address)
		if old := e.metricsServer; errors.Is(err, syscall.EADDRINUSE) && old != nil && overlap(old.bound(), address) {
			next.madeRoom = true
			_ = old.ln.Close() // of the two errors the next says more
			ln, err = listenTCP(ctx, address)
		}
		if err != nil {
			next.metrics = e.metricsServer
			diags = append(diags, cannotBind(cfg, "metrics", err))
			break
		}
		next.metrics = e.newMetricsServer(address, ln)
	}
	address := control.Address(cfg.Control.Address, cfg.Daemon.RunDir)
	commit, undo, err := e.control.Prepare(address)
	switch {
	case err == nil:
		next.commitControl, next.undoControl = commit, undo
	case cfg.Control.Address != "":
		diags = append(diags, obstacle(cfg, "control", "address", "the control socket cannot be bound", err.Error()))
	default:
		// Nobody asked for it.
		e.log.Warn("no control socket: tunneld reload and tunneld status will not find this daemon", "address", address, "err", err)
	}
	if diags.HasErrors() {
		e.dropServers(next)
	}
	return next, diags
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

// dropServers closes what was bound for next, and binds again what made room.
func (e *Engine) dropServers(next *nextServers) {
	next.undoControl()
	if m := next.metrics; m != nil && m != e.metricsServer {
		if err := m.ln.Close(); err != nil {
			e.log.Warn("undo of a reload", "err", err)
		}
	}
	if next.madeRoom {
		e.restoreMetrics()
	}
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
func (e *Engine) commitServers(next *nextServers) {
	next.commitControl()
	old := e.metricsServer
	if old == next.metrics {
		return
	}
	e.metricsServer = next.metrics
	if m := next.metrics; m != nil {
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
