// Package metrics counts what happens to connections, and serves the counts and the
// daemon's status to Prometheus. Label values are names from the configuration or from
// a closed list, so the number of series is bounded.
package metrics

import (
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/tunneld/tunneld/core/internal/tunnel"
	"github.com/tunneld/tunneld/core/status"
)

// Metrics is a set of counters and their registry. See New. It is safe for
// concurrent use.
type Metrics struct {
	registry *prometheus.Registry
	snapshot func() status.Status

	accepted, paused, yielded, probes     *prometheus.CounterVec // by listener
	handshakes                            *prometheus.CounterVec
	loginsAsked, loginsFailed, loginsBusy *prometheus.CounterVec // as well
	requests                              *prometheus.CounterVec
	refused                               *prometheus.CounterVec
	dials, stages                         *prometheus.HistogramVec
	failures                              *prometheus.CounterVec
	lifetimes                             *prometheus.HistogramVec

	tunnels sync.Map // TunnelKey → *Tunnel

	mu     sync.RWMutex
	active map[string]*atomic.Int64 // open connections by listener
	// known are the names that series may have, by label; those that are gone
	// from the configuration stay until nothing of theirs is open. False: they
	// were dropped, but what was under way may have counted since.
	known map[string]map[string]bool
}

// dialBuckets and lifeBuckets are upper bounds in seconds.
var (
	dialBuckets = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}
	lifeBuckets = []float64{.01, .1, 1, 10, 60, 600, 3600, 6 * 3600, 24 * 3600}
)

// New returns counters at zero. snapshot is asked once for each scrape.
func New(version string, snapshot func() status.Status) *Metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "tunneld", Name: name, Help: help}, labels)
	}
	histogram := func(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: "tunneld", Name: name, Help: help, Buckets: buckets}, labels)
	}
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		snapshot: snapshot,
		active:   map[string]*atomic.Int64{},
		known:    map[string]map[string]bool{},

		accepted:     counter("connections_total", "Connections accepted within the limits.", "listener"),
		paused:       counter("accept_pauses_total", "Pauses of accepting after an error, usually for lack of file descriptors.", "listener"),
		handshakes:   counter("handshake_failures_total", "Clients whose own handshake failed, by the reason in the log.", "listener", "reason"),
		yielded:      counter("handshakes_yielded_total", "Clients in their handshake that gave way to newer ones.", "listener"),
		probes:       counter("probes_total", "Clients that left without sending anything, such as health checks of the port, on listeners where clients speak first.", "listener"),
		loginsAsked:  counter("login_challenges_total", "HTTP clients that sent no user and password and were asked for them, as most are at first.", "listener"),
		loginsFailed: counter("login_failures_total", "Clients with a wrong user or password.", "listener"),
		loginsBusy:   counter("logins_busy_total", "Clients whose user and password were not checked, since too many waited, or for too long.", "listener"),
		requests:     counter("http_requests_total", "Requests of HTTP clients that ask for no tunnel, by the class of the answer's status; none: there was no answer.", "listener", "code"),
		refused:      counter("connections_refused_total", "Connections refused by a limit, or by allow or deny of the listener.", "listener", "limit"),
		failures:     counter("connection_failures_total", "Connections without a tunnel, by the stage and the reason of the last dial.", "listener", "route", "upstream", "stage", "reason"),
		dials:        histogram("dial_duration_seconds", "Time of one dial of one upstream; result is ok or the reason of its failure.", dialBuckets, "upstream", "result"),
		stages:       histogram("dial_stage_duration_seconds", "Time of the stages of a dial; result is the dial's.", dialBuckets, "upstream", "stage", "result"),
		lifetimes:    histogram("tunnel_lifetime_seconds", "Time from accept to the end of a tunnel.", lifeBuckets, "listener", "upstream"),
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Namespace: "tunneld", Name: "build_info", Help: "Always 1; the labels say what is running.",
		ConstLabels: prometheus.Labels{"version": version, "goversion": runtime.Version(), "os": runtime.GOOS, "arch": runtime.GOARCH},
	})
	build.Set(1)
	for _, v := range m.vectors() {
		m.registry.MustRegister(v)
	}
	m.registry.MustRegister(
		build, connectionCollector{m}, tunnelCollector{m}, statusCollector{m},
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return m
}

// Accepted counts a connection that got past the limits, Closed its end.
func (m *Metrics) Accepted(listener string) {
	m.accepted.WithLabelValues(listener).Inc()
	m.open(listener, 1)
}

// Closed counts the end of a connection that was accepted.
func (m *Metrics) Closed(listener string) { m.open(listener, -1) }

func (m *Metrics) open(listener string, n int64) {
	m.mu.RLock()
	count := m.active[listener]
	if count != nil {
		count.Add(n)
	}
	m.mu.RUnlock()
	if count != nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.active[listener] == nil {
		m.active[listener] = new(atomic.Int64)
	}
	m.active[listener].Add(n)
}

// Refused counts a connection beyond a limit, which is named as in the
// configuration: "limits.max_per_source"; that of the system is "RLIMIT_NOFILE", and
// "allow" and "deny" are the lists of a listener.
func (m *Metrics) Refused(listener, limit string) { m.refused.WithLabelValues(listener, limit).Inc() }

// HandshakeFailed counts a client whose own handshake failed. The reasons are those of
// listen.Reason, "yielded" and "stopping".
func (m *Metrics) HandshakeFailed(listener, reason string) {
	m.handshakes.WithLabelValues(listener, reason).Inc()
}

// HandshakeYielded counts a client whose handshake was broken off for a newer one.
func (m *Metrics) HandshakeYielded(listener string) { m.yielded.WithLabelValues(listener).Inc() }

// Probed counts a client that has left without sending anything.
func (m *Metrics) Probed(listener string) { m.probes.WithLabelValues(listener).Inc() }

// LoginAsked counts an HTTP client that was told to come again with a user and a password.
func (m *Metrics) LoginAsked(listener string) { m.loginsAsked.WithLabelValues(listener).Inc() }

// LoginFailed counts a client that was not let in: its user or password was wrong, or was
// not checked.
func (m *Metrics) LoginFailed(listener string, checked bool) {
	if checked {
		m.loginsFailed.WithLabelValues(listener).Inc()
	} else {
		m.loginsBusy.WithLabelValues(listener).Inc()
	}
}

// Requested counts an HTTP request and the status of its answer; 0: there was none.
func (m *Metrics) Requested(listener string, status int) {
	code := "none"
	if status > 0 {
		code = fmt.Sprintf("%dxx", status/100)
	}
	m.requests.WithLabelValues(listener, code).Inc()
}

// AcceptPaused counts a pause of accepting for want of descriptors.
func (m *Metrics) AcceptPaused(listener string) { m.paused.WithLabelValues(listener).Inc() }

// Dialed counts one attempt at one upstream; err is nil where it succeeded.
func (m *Metrics) Dialed(upstream string, took time.Duration, stages []tunnel.StageTime, err *tunnel.DialError) {
	result := "ok"
	if err != nil {
		result = err.Reason.Text()
	}
	m.dials.WithLabelValues(upstream, result).Observe(took.Seconds())
	for _, s := range stages {
		m.stages.WithLabelValues(upstream, s.Stage.Text(), result).Observe(s.Duration.Seconds())
	}
}

// Failed counts a connection that never became a tunnel. route and upstream are
// empty where it did not get that far.
func (m *Metrics) Failed(listener, route, upstream string, err *tunnel.DialError) {
	m.failures.WithLabelValues(listener, route, upstream, err.Stage.Text(), err.Reason.Text()).Inc()
}

// Retain keeps the series of these names, which are those of the configuration in
// force. It drops the series of other names once a call finds nothing of theirs
// open, and again in the next call, since a dial counts when it ends.
func (m *Metrics) Retain(listeners, routes, upstreams map[string]bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := map[string]map[string]bool{"listener": listeners, "route": routes, "upstream": upstreams}
	open := map[string]map[string]bool{"listener": {}, "route": {}, "upstream": {}}
	m.Tunnels(func(k TunnelKey, t *Tunnel) {
		if listeners[k.Listener] && routes[k.Route] && upstreams[k.Upstream] {
			return
		}
		if t.Active() == 0 {
			m.tunnels.Delete(k)
			return
		}
		open["listener"][k.Listener], open["route"][k.Route], open["upstream"][k.Upstream] = true, true, true
	})
	for l, n := range m.active {
		switch {
		case listeners[l]:
		case n.Load() == 0:
			delete(m.active, l)
		default:
			open["listener"][l] = true
		}
	}
	for label, names := range now {
		kept := map[string]bool{}
		for name := range names {
			kept[name] = true
		}
		for name, live := range m.known[label] {
			switch {
			case kept[name]:
			case open[label][name]:
				kept[name] = true
			case live:
				kept[name] = false
				fallthrough
			default:
				m.drop(label, name)
			}
		}
		m.known[label] = kept
	}
}

// drop deletes the series that have the label with the name.
func (m *Metrics) drop(label, name string) {
	match := prometheus.Labels{label: name}
	for _, v := range m.vectors() {
		v.DeletePartialMatch(match)
	}
}

// vector is a metric with labels.
type vector interface {
	prometheus.Collector
	DeletePartialMatch(prometheus.Labels) int
}

func (m *Metrics) vectors() []vector {
	return []vector{m.accepted, m.paused, m.handshakes, m.yielded, m.probes, m.loginsAsked, m.loginsFailed, m.loginsBusy, m.requests, m.refused, m.failures, m.dials, m.stages, m.lifetimes}
}

// connectionCollector reads the open connections at the time of a scrape.
type connectionCollector struct{ m *Metrics }

var connectionsActive = desc("connections_active", "Open connections, from accept to close.", "listener")

// Describe implements prometheus.Collector.
func (c connectionCollector) Describe(out chan<- *prometheus.Desc) { out <- connectionsActive }

// Collect implements prometheus.Collector.
func (c connectionCollector) Collect(out chan<- prometheus.Metric) {
	c.m.mu.RLock()
	defer c.m.mu.RUnlock()
	for l, n := range c.m.active {
		writer(out).gauge(connectionsActive, float64(n.Load()), l)
	}
}
