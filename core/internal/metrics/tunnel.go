package metrics

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tunneld/tunneld/core/internal/tunnel"
)

// TunnelKey is what tunnels are counted by.
type TunnelKey struct {
	Listener, Route, Upstream string
	Path                      tunnel.Path
}

// Tunnel counts the tunnels of one key. It is safe for concurrent use.
type Tunnel struct {
	traffic  tunnel.Traffic
	opened   atomic.Uint64
	active   atomic.Int64
	closed   [len(closeReasons) + 1]atomic.Uint64 // the last is of other reasons
	lifetime prometheus.Observer
}

var closeReasons = [...]tunnel.CloseReason{
	tunnel.CloseClientEOF, tunnel.CloseUpstreamEOF, tunnel.CloseClientReset, tunnel.CloseUpstreamReset,
	tunnel.ClosePluginDied, tunnel.CloseIdle, tunnel.CloseHalfClosed, tunnel.CloseLifetime, tunnel.CloseDeadLine,
	tunnel.CloseKilled,
}

// Tunnel returns the counts of a key, always the same ones.
func (m *Metrics) Tunnel(key TunnelKey) *Tunnel {
	if t, ok := m.tunnels.Load(key); ok {
		return t.(*Tunnel)
	}
	t, _ := m.tunnels.LoadOrStore(key, &Tunnel{lifetime: m.lifetimes.WithLabelValues(key.Listener, key.Upstream)})
	return t.(*Tunnel)
}

// Tunnels calls do for each key that has had a tunnel.
func (m *Metrics) Tunnels(do func(TunnelKey, *Tunnel)) {
	m.tunnels.Range(func(k, t any) bool {
		do(k.(TunnelKey), t.(*Tunnel))
		return true
	})
}

// Opened counts a tunnel that was established.
func (t *Tunnel) Opened() {
	t.opened.Add(1)
	t.active.Add(1)
}

// Ended counts the end of a tunnel; took is the time since its connection was
// accepted.
func (t *Tunnel) Ended(reason tunnel.CloseReason, took time.Duration) {
	t.active.Add(-1)
	t.closed[reasonIndex(reason)].Add(1)
	t.lifetime.Observe(took.Seconds())
}

func reasonIndex(r tunnel.CloseReason) int {
	for i, known := range closeReasons {
		if r == known {
			return i
		}
	}
	return len(closeReasons)
}

// Active is how many tunnels are open.
func (t *Tunnel) Active() int { return int(t.active.Load()) }

// Traffic is what the pump adds the tunnels' bytes to.
func (t *Tunnel) Traffic() *tunnel.Traffic { return &t.traffic }

// tunnelCollector reads the tunnels' counts at the time of a scrape.
type tunnelCollector struct{ m *Metrics }

var (
	tunnelLabels  = []string{"listener", "route", "upstream", "path"}
	tunnelsOpened = desc("tunnels_total", "Tunnels established.", tunnelLabels...)
	tunnelsActive = desc("tunnels_active", "Open tunnels.", tunnelLabels...)
	tunnelsClosed = desc("tunnels_closed_total", "Tunnels ended, by reason.", append(tunnelLabels[:4:4], "reason")...)
	tunnelBytes   = desc("tunnel_bytes_total", "Bytes moved, up towards the upstream or down towards the client, by splice in the kernel or by copy through a buffer.",
		append(tunnelLabels[:4:4], "direction", "method")...)
	tunnelPaused = desc("tunnel_paused_seconds_total", "Time that tunnels waited for bandwidth, all of them together.", append(tunnelLabels[:4:4], "direction")...)
)

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("tunneld_"+name, help, labels, nil)
}

// Describe implements prometheus.Collector.
func (c tunnelCollector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{tunnelsOpened, tunnelsActive, tunnelsClosed, tunnelBytes, tunnelPaused} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (c tunnelCollector) Collect(out chan<- prometheus.Metric) {
	c.m.Tunnels(func(k TunnelKey, t *Tunnel) {
		labels := []string{k.Listener, k.Route, k.Upstream, k.Path.Text()}
		w, with := writer(out), func(more ...string) []string { return append(labels[:4:4], more...) }
		w.counter(tunnelsOpened, float64(t.opened.Load()), labels...)
		w.gauge(tunnelsActive, float64(t.active.Load()), labels...)
		for i := range t.closed {
			reason := "other"
			if i < len(closeReasons) {
				reason = string(closeReasons[i])
			}
			if n := t.closed[i].Load(); n > 0 {
				w.counter(tunnelsClosed, float64(n), with(reason)...)
			}
		}
		for _, way := range []struct {
			direction string
			moved     *tunnel.Moved
		}{{"up", &t.traffic.Up}, {"down", &t.traffic.Down}} {
			w.counter(tunnelBytes, float64(way.moved.Spliced.Load()), with(way.direction, "splice")...)
			w.counter(tunnelBytes, float64(way.moved.Copied.Load()), with(way.direction, "copy")...)
			w.counter(tunnelPaused, time.Duration(way.moved.Paused.Load()).Seconds(), with(way.direction)...)
		}
	})
}
