package metrics

import (
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"

	"github.com/tunneld/tunneld/core/internal/tunnel"
	"github.com/tunneld/tunneld/core/status"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

var (
	now    = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	direct = TunnelKey{"tcp.db", "all", "direct.x", pluginv1.DataPath_DATA_PATH_DIRECT}
	relay  = TunnelKey{"tcp.db", "all", "soht.x", pluginv1.DataPath_DATA_PATH_RELAY}
	failed = &tunnel.DialError{Stage: pluginv1.Stage_STAGE_CONNECT, Reason: pluginv1.Reason_REASON_REFUSED}
)

// full is what a daemon says of itself that has everything to say.
func full() status.Status {
	return status.Status{
		Generation: 7, Reloads: 5, FailedReloads: 2, LogDropped: 21,
		Reload:    &status.Reload{At: now, Duration: 1500 * time.Millisecond, Error: "no"},
		Listeners: []status.Listener{{ID: "tcp.db"}, {ID: "tcp.web", FileProblem: "broken", Certificates: []status.Certificate{{File: "/c", NotAfter: now}}}},
		Upstreams: []status.Upstream{
			{ID: "direct.x", Health: "ok"},
			{ID: "soht.x", Health: "failing", Connections: 98, MaxConnections: 100, Waiting: 3, Unreleased: 4},
			{ID: "soht.y", Health: "unknown", CredentialExpires: now.Add(time.Hour), CredentialRenewed: now, FileProblem: "tls: broken",
				Certificates: []status.Certificate{{File: "/a", NotAfter: now.Add(time.Hour)}, {File: "/b", NotAfter: now}}},
		},
		Plugins: []status.Plugin{
			{Name: "soht", Status: "running", Restarts: 3, LastExit: "signal: killed (core dumped)", Open: 2},
			{Name: "soht", Status: "draining", Open: 5, Retired: true},
			{Name: "acme", Status: "crash_looping", LastExit: "start: " + strings.Repeat("x", 1000)},
			{Name: "websocks", Status: "running", Refused: "no password"},
		},
		Pump: status.Pump{Workers: 2, PipesInUse: 1, PipesIdle: 4, PipesMade: 5, PipesRefused: 6, PipesSmall: 7, BuffersInUse: 8, BuffersMade: 9},
	}
}

// populated returns a Metrics with a series of every kind.
func populated() *Metrics {
	m := New("1.2.3", full)
	m.Retain(set("tcp.db"), set("all"), set("direct.x", "soht.x"))
	m.Accepted("tcp.db")
	m.Accepted("tcp.db")
	m.Closed("tcp.db")
	m.Refused("tcp.db", "limits.max_per_source")
	m.HandshakeFailed("tcp.db", "timeout")
	m.HandshakeYielded("tcp.db")
	m.Probed("tcp.db")
	m.LoginAsked("tcp.db")
	m.LoginFailed("tcp.db", true)
	m.LoginFailed("tcp.db", true)
	m.LoginFailed("tcp.db", false)
	m.Requested("tcp.db", 204)
	m.Requested("tcp.db", 0)
	m.AcceptPaused("tcp.db")
	m.Dialed("direct.x", 20*time.Millisecond, []tunnel.StageTime{{Stage: pluginv1.Stage_STAGE_CONNECT, Duration: 20 * time.Millisecond}}, nil)
	m.Dialed("direct.x", time.Second, nil, failed)
	m.Failed("tcp.db", "all", "direct.x", failed)
	for _, key := range []TunnelKey{direct, relay} {
		t := m.Tunnel(key)
		t.Opened()
		t.Opened()
		t.Traffic().Up.Spliced.Add(1 << 30)
		t.Traffic().Up.Copied.Add(3)
		t.Traffic().Down.Copied.Add(4)
		t.Ended(tunnel.CloseClientEOF, time.Minute)
		t.Ended("what nobody thought of", time.Minute)
	}
	m.Tunnel(direct).Opened()
	return m
}

func set(names ...string) map[string]bool {
	s := map[string]bool{}
	for _, n := range names {
		s[n] = true
	}
	return s
}

// scrape returns the series of this project: `tunneld_x{a="b"} 1`.
func scrape(t *testing.T, m *Metrics) []string {
	t.Helper()
	code, body := get(t, m, http.MethodGet, "/metrics")
	if code != http.StatusOK {
		t.Fatalf("status %d: %s", code, body)
	}
	var series []string
	for line := range strings.Lines(body) {
		if strings.HasPrefix(line, "tunneld_") {
			series = append(series, strings.TrimSpace(line))
		}
	}
	return series
}

func get(t *testing.T, m *Metrics, method, path string) (int, string) {
	t.Helper()
	s := httptest.NewServer(m.Handler())
	defer s.Close()
	req, err := http.NewRequestWithContext(t.Context(), method, s.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, string(body)
}

func wantSeries(t *testing.T, m *Metrics, want ...string) {
	t.Helper()
	got := scrape(t, m)
	for _, w := range want {
		if !slices.Contains(got, w) {
			name, _, _ := strings.Cut(w, "{")
			t.Errorf("%s is missing; there is:\n%s", w, strings.Join(slices.DeleteFunc(slices.Clone(got), func(s string) bool { return !strings.HasPrefix(s, name) }), "\n"))
		}
	}
}

func TestScrape(t *testing.T) {
	const labels = `{listener="tcp.db",path="direct",route="all",upstream="direct.x"}`
	wantSeries(t, populated(),
		`tunneld_connections_total{listener="tcp.db"} 2`,
		`tunneld_connections_active{listener="tcp.db"} 1`,
		`tunneld_connections_refused_total{limit="limits.max_per_source",listener="tcp.db"} 1`,
		`tunneld_handshake_failures_total{listener="tcp.db",reason="timeout"} 1`,
		`tunneld_handshakes_yielded_total{listener="tcp.db"} 1`,
		`tunneld_probes_total{listener="tcp.db"} 1`,
		`tunneld_login_challenges_total{listener="tcp.db"} 1`,
		`tunneld_login_failures_total{listener="tcp.db"} 2`,
		`tunneld_logins_busy_total{listener="tcp.db"} 1`,
		`tunneld_accept_pauses_total{listener="tcp.db"} 1`,
		`tunneld_connection_failures_total{listener="tcp.db",reason="refused",route="all",stage="connect",upstream="direct.x"} 1`,
		`tunneld_dial_duration_seconds_sum{result="ok",upstream="direct.x"} 0.02`,
		`tunneld_dial_duration_seconds_count{result="refused",upstream="direct.x"} 1`,
		`tunneld_dial_stage_duration_seconds_count{result="ok",stage="connect",upstream="direct.x"} 1`,
		`tunneld_tunnels_total`+labels+` 3`,
		`tunneld_tunnels_active`+labels+` 1`,
		`tunneld_tunnels_closed_total{listener="tcp.db",path="direct",reason="client_eof",route="all",upstream="direct.x"} 1`,
		`tunneld_tunnels_closed_total{listener="tcp.db",path="direct",reason="other",route="all",upstream="direct.x"} 1`,
		`tunneld_tunnel_bytes_total{direction="up",listener="tcp.db",method="splice",path="relay",route="all",upstream="soht.x"} 1.073741824e+09`,
		`tunneld_tunnel_bytes_total{direction="down",listener="tcp.db",method="copy",path="relay",route="all",upstream="soht.x"} 4`,
		`tunneld_config_generation 7`,
		`tunneld_config_reloads_total{outcome="success"} 3`,
		`tunneld_config_reloads_total{outcome="failure"} 2`,
		`tunneld_config_last_reload_successful 0`,
		`tunneld_config_last_reload_duration_seconds 1.5`,
		`tunneld_upstream_healthy{upstream="direct.x"} 1`,
		`tunneld_upstream_healthy{upstream="soht.x"} 0`,
		`tunneld_upstream_connections{upstream="soht.x"} 98`,
		`tunneld_upstream_max_connections{upstream="soht.x"} 100`,
		`tunneld_upstream_waiting_dials{upstream="soht.x"} 3`,
		`tunneld_upstream_unreleased_tunnels{upstream="soht.x"} 4`,
		`tunneld_log_lines_dropped_total 21`,
		`tunneld_upstream_credential_expires_timestamp_seconds{upstream="soht.y"} 1.767326645e+09`,
		`tunneld_upstream_certificate_expires_timestamp_seconds{upstream="soht.y"} 1.767323045e+09`,
		`tunneld_listener_certificate_expires_timestamp_seconds{listener="tcp.web"} 1.767323045e+09`,
		`tunneld_upstream_file_problem{upstream="soht.y"} 1`,
		`tunneld_listener_file_problem{listener="tcp.web"} 1`,
		`tunneld_listener_file_problem{listener="tcp.db"} 0`,
		`tunneld_upstream_file_problem{upstream="soht.x"} 0`,
		`tunneld_plugin_up{plugin="soht"} 1`,
		`tunneld_plugin_up{plugin="acme"} 0`,
		`tunneld_plugin_up{plugin="websocks"} 0`,
		`tunneld_plugin_status{plugin="acme",status="crash_looping"} 1`,
		`tunneld_plugin_restarts_total{plugin="soht"} 3`,
		`tunneld_plugin_last_exit_info{exit="signal: killed",plugin="soht"} 1`,
		`tunneld_plugin_last_exit_info{exit="other",plugin="acme"} 1`,
		`tunneld_plugin_open{plugin="soht"} 7`,
		`tunneld_plugin_retired_processes{plugin="soht"} 1`,
		`tunneld_pump_pipes_small_total 7`,
	)
}

// TestLint holds names and help against the conventions, and every value of a
// label that is not a name of the configuration against a closed list.
func TestLint(t *testing.T) {
	problems, err := testutil.GatherAndLint(populated().registry)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	for _, f := range families(t) {
		if !strings.HasPrefix(f.GetName(), "tunneld_") {
			t.Errorf("%s", f.GetName())
		}
		if !strings.HasSuffix(f.GetHelp(), ".") {
			t.Errorf("%s: the help is no sentence: %q", f.GetName(), f.GetHelp())
		}
	}
}

// TestEveryKind: what is described and absent from the scrape would be in no other
// test, and not in docs/metrics.md.
func TestEveryKind(t *testing.T) {
	m := populated()
	described := make(chan *prometheus.Desc)
	go func() {
		defer close(described)
		for _, c := range []prometheus.Collector{connectionCollector{m}, tunnelCollector{m}, statusCollector{m}} {
			c.Describe(described)
		}
	}()
	all := families(t)
	for d := range described {
		if !slices.ContainsFunc(all, func(f *dto.MetricFamily) bool {
			return strings.Contains(d.String(), fmt.Sprintf("fqName: %q,", f.GetName()))
		}) {
			t.Errorf("no series of %s", d)
		}
	}
}

// families are this project's own metrics, by name.
func families(t *testing.T) []*dto.MetricFamily {
	t.Helper()
	all, err := populated().registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(all, func(f *dto.MetricFamily) bool {
		return strings.HasPrefix(f.GetName(), "go_") || strings.HasPrefix(f.GetName(), "process_")
	})
}

// TestRetain drops what is gone from the configuration, and nothing that is open.
func TestRetain(t *testing.T) {
	m := populated()
	before := len(scrape(t, m))
	m.Retain(set("tcp.db"), set("all"), set("direct.x", "soht.x"))
	if after := len(scrape(t, m)); after != before {
		t.Errorf("%d series, %d before: nothing is gone", after, before)
	}
	m.Retain(set(), set(), set())
	wantSeries(t, m,
		`tunneld_connections_active{listener="tcp.db"} 1`,
		`tunneld_connections_total{listener="tcp.db"} 2`,
		`tunneld_tunnels_active{listener="tcp.db",path="direct",route="all",upstream="direct.x"} 1`,
	)
	if i := slices.IndexFunc(scrape(t, m), func(s string) bool { return strings.Contains(s, `path="relay"`) }); i >= 0 {
		t.Error("a tunnel's counts are there that nothing is open of")
	}
	m.Tunnel(direct).Ended(tunnel.CloseKilled, 0)
	m.Closed("tcp.db")
	m.Retain(set(), set(), set())
	for _, s := range scrape(t, m) {
		// What the status has comes and goes with it.
		if strings.Contains(s, "listener=") && !strings.HasPrefix(s, "tunneld_listener_") || strings.Contains(s, "tunneld_dial") {
			t.Errorf("left: %s", s)
		}
	}
}

// TestRetainOfStragglers: what a dial that was under way counts of an upstream
// that is gone is dropped as well.
func TestRetainOfStragglers(t *testing.T) {
	m := populated()
	m.Tunnel(direct).Ended(tunnel.CloseKilled, 0)
	m.Closed("tcp.db")
	m.Retain(set(), set(), set())
	m.Dialed("direct.x", time.Second, nil, failed)
	m.Failed("tcp.db", "all", "direct.x", failed)
	m.Retain(set(), set(), set())
	for _, s := range scrape(t, m) {
		// What the status has comes and goes with it.
		if strings.Contains(s, "listener=") && !strings.HasPrefix(s, "tunneld_listener_") || strings.Contains(s, "tunneld_dial") {
			t.Errorf("left: %s", s)
		}
	}
	for label, names := range m.known {
		if len(names) > 0 {
			t.Errorf("%s: %v", label, names)
		}
	}
}

func TestHealth(t *testing.T) {
	var s status.Status
	m := New("", func() status.Status { return s })
	for _, c := range []struct {
		method, path string
		code         int
		body         string
	}{
		{http.MethodGet, "/healthz", 200, "ok\n"},
		{http.MethodGet, "/readyz", 200, "ready\n"},
		{http.MethodHead, "/readyz", 200, ""},
		{http.MethodGet, "/", 404, "there is no / here, only /metrics, /healthz and /readyz\n"},
		{http.MethodPost, "/metrics", 405, "only GET and HEAD are served here\n"},
	} {
		if code, body := get(t, m, c.method, c.path); code != c.code || body != c.body {
			t.Errorf("%s %s: %d %q", c.method, c.path, code, body)
		}
	}
	s = status.Status{State: status.Draining, Plugins: []status.Plugin{{Name: "a", Status: "crash_looping", LastExit: "exit status 3"}, {Name: "b", Status: "crash_looping", Retired: true},
		{Name: "c", Status: "running", Refused: "no password"}, {Name: "d", Status: "running", Refused: "no password", Retired: true}}}
	if code, body := get(t, m, http.MethodGet, "/readyz"); code != 503 || body != "the daemon is stopping\nplugin a keeps dying: exit status 3\nplugin c was restarted and no longer accepts its configuration: no password\n" {
		t.Errorf("%d %q", code, body)
	}
}

// TestConcurrent counts from many goroutines while names come and go.
func TestConcurrent(t *testing.T) {
	m := New("", full)
	var work, scrapes sync.WaitGroup
	for range 8 {
		work.Go(func() {
			for range 500 {
				m.Accepted("tcp.db")
				m.Dialed("direct.x", time.Millisecond, nil, nil)
				m.Failed("tcp.db", "all", "direct.x", failed)
				c := m.Tunnel(direct)
				c.Opened()
				c.Ended(tunnel.CloseIdle, time.Second)
				m.Closed("tcp.db")
			}
		})
	}
	done := make(chan struct{})
	scrapes.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
				m.Retain(set(), set(), set())
				scrape(t, m)
			}
		}
	})
	work.Wait()
	close(done)
	scrapes.Wait()
	if m.Tunnel(direct).Active() != 0 {
		t.Errorf("%d tunnels are open", m.Tunnel(direct).Active())
	}
	for _, s := range scrape(t, m) {
		if strings.HasPrefix(s, "tunneld_connections_active") && !strings.HasSuffix(s, " 0") {
			t.Error(s)
		}
	}
}

// TestHotPathAllocatesNothing once a set of labels is known.
func TestHotPathAllocatesNothing(t *testing.T) {
	m := populated()
	stages := []tunnel.StageTime{{Stage: pluginv1.Stage_STAGE_CONNECT, Duration: time.Millisecond}}
	pass := func() {
		m.Accepted("tcp.db")
		m.Dialed("direct.x", time.Millisecond, stages, nil)
		c := m.Tunnel(direct)
		c.Opened()
		c.Traffic().Up.Spliced.Add(1)
		c.Ended(tunnel.CloseIdle, time.Second)
		m.Closed("tcp.db")
	}
	// The whole process is counted, what earlier tests left behind included: the
	// least of several counts is the code's own.
	least := math.Inf(1)
	for range 10 {
		least = min(least, testing.AllocsPerRun(100, pass))
	}
	if least > 1 { // the key of a sync.Map
		t.Errorf("%v allocations", least)
	}
}

// TestOddErrors: what a dial error does not say is "unknown", not a new label.
func TestOddErrors(t *testing.T) {
	m := New("", full)
	m.Dialed("direct.x", 0, nil, &tunnel.DialError{Reason: 99, Err: errors.New("odd")})
	wantSeries(t, m, `tunneld_dial_duration_seconds_count{result="unknown",upstream="direct.x"} 1`)
}
