package metrics

import (
	"regexp"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tunneld/tunneld/core/status"
)

// statusCollector turns what the daemon says of itself into metrics.
type statusCollector struct{ m *Metrics }

var (
	generation    = desc("config_generation", "Number of the configuration in force.")
	reloads       = desc("config_reloads_total", "Reloads, by outcome.", "outcome")
	lastReloadOK  = desc("config_last_reload_successful", "Whether the last reload succeeded; 1 before the first.")
	lastReloadAt  = desc("config_last_reload_timestamp_seconds", "When the last reload began; absent before the first.")
	lastReloadDur = desc("config_last_reload_duration_seconds", "How long the last reload took; absent before the first.")

	logDropped = desc("log_lines_dropped_total", "Log lines lost because nobody read them in time, or writing failed.")

	upstreamUp  = desc("upstream_healthy", "1 if the upstream's plugin reports it healthy, 0 if failing; absent if unknown.", "upstream")
	upUsable    = desc("upstream_usable", "0 while the upstream is passed over as long as a route has another, 1 otherwise.", "upstream")
	credExpires = desc("upstream_credential_expires_timestamp_seconds", "When the credential in use expires; absent if there is none.", "upstream")
	credRenewed = desc("upstream_credential_renewed_timestamp_seconds", "When the credential was last renewed; absent if there is none.", "upstream")
	certExpires = desc("upstream_certificate_expires_timestamp_seconds", "When the first of the upstream's client certificates from files expires; absent if there is none.", "upstream")
	fileProblem = desc("upstream_file_problem", "1 while a followed file of the upstream is unusable and its old content stays in use, otherwise 0.", "upstream")
	listenCert  = desc("listener_certificate_expires_timestamp_seconds", "When the first of the listener's certificates from files expires; absent if there is none.", "listener")
	listenFile  = desc("listener_file_problem", "1 while a file that the listener's block reads or names is unusable, or a part of it, otherwise 0.", "listener")
	upConns     = desc("upstream_connections", "Open connections through the upstream, dials in progress included.", "upstream")
	upLimit     = desc("upstream_max_connections", "The upstream's max_connections; absent if there is no limit.", "upstream")
	upWaiting   = desc("upstream_waiting_dials", "Dials that wait for a place among the upstream's max_connections.", "upstream")
	unreleased  = desc("upstream_unreleased_tunnels", "Ended tunnels that the far end may still hold, since it has not confirmed their end.", "upstream")

	pluginUp       = desc("plugin_up", "1 while the plugin's process accepts dials.", "plugin")
	pluginStatus   = desc("plugin_status", "1 for the status that the plugin is in, 0 for the others.", "plugin", "status")
	pluginRestarts = desc("plugin_restarts_total", "Processes started after the first.", "plugin")
	pluginExit     = desc("plugin_last_exit_info", "Always 1; the label says how the plugin's last process ended.", "plugin", "exit")
	pluginOpen     = desc("plugin_open", "Dials in progress and open relays in the plugin's processes.", "plugin")
	pluginRetired  = desc("plugin_retired_processes", "Draining processes that the configuration in force does not use.", "plugin")

	pumpWorkers    = desc("pump_workers", "Workers of the kernel pump; 0 on a system without one.")
	pumpPaused     = desc("pump_paused_directions", "Directions of tunnels that wait for bandwidth now.")
	pipesInUse     = desc("pump_pipes_in_use", "Pipes that tunnels splice through now.")
	pipesIdle      = desc("pump_pipes_idle", "Pipes kept for the next tunnels.")
	pipesMade      = desc("pump_pipes_made_total", "Pipes made.")
	pipesRefused   = desc("pump_pipes_refused_total", "Pipes that the system refused; bytes were copied instead.")
	pipesSmall     = desc("pump_pipes_small_total", "Pipes that the system made smaller than requested.")
	buffersInUse   = desc("pump_buffers_in_use", "Pooled buffers in use now.")
	buffersMade    = desc("pump_buffers_made_total", "Pooled buffers made.")
	pluginStatuses = []string{"starting", "running", "backoff", "crash_looping", "draining", "stopped"}
)

// Describe implements prometheus.Collector.
func (c statusCollector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		generation, reloads, lastReloadOK, lastReloadAt, lastReloadDur, logDropped,
		upstreamUp, upUsable, credExpires, credRenewed, certExpires, fileProblem, listenCert, listenFile, upConns, upLimit, upWaiting, unreleased,
		pluginUp, pluginStatus, pluginRestarts, pluginExit, pluginOpen, pluginRetired,
		pumpWorkers, pumpPaused, pipesInUse, pipesIdle, pipesMade, pipesRefused, pipesSmall, buffersInUse, buffersMade,
	} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (c statusCollector) Collect(out chan<- prometheus.Metric) {
	s := c.m.snapshot()
	w := writer(out)
	w.gauge(generation, float64(s.Generation))
	w.counter(reloads, float64(s.Reloads-s.FailedReloads), "success")
	w.counter(reloads, float64(s.FailedReloads), "failure")
	w.gauge(lastReloadOK, truth(s.Reload == nil || s.Reload.Error == ""))
	if r := s.Reload; r != nil {
		w.time(lastReloadAt, r.At)
		w.gauge(lastReloadDur, r.Duration.Seconds())
	}
	w.counter(logDropped, float64(s.LogDropped))
	for _, l := range s.Listeners {
		w.time(listenCert, firstEnd(l.Certificates), l.ID)
		w.gauge(listenFile, truth(l.FileProblem != ""), l.ID)
	}
	for _, u := range s.Upstreams {
		if u.Health == "ok" || u.Health == "failing" {
			w.gauge(upstreamUp, truth(u.Health == "ok"), u.ID)
		}
		w.gauge(upUsable, truth(u.Unusable == nil), u.ID)
		w.time(credExpires, u.CredentialExpires, u.ID)
		w.time(credRenewed, u.CredentialRenewed, u.ID)
		w.time(certExpires, firstEnd(u.Certificates), u.ID)
		w.gauge(fileProblem, truth(u.FileProblem != ""), u.ID)
		w.gauge(upConns, float64(u.Connections), u.ID)
		if u.MaxConnections > 0 {
			w.gauge(upLimit, float64(u.MaxConnections), u.ID)
		}
		w.gauge(upWaiting, float64(u.Waiting), u.ID)
		w.gauge(unreleased, float64(u.Unreleased), u.ID)
	}
	w.plugins(s.Plugins)
	w.pump(s.Pump)
}

// firstEnd is when the first of the certificates ends; zero: there is none.
func firstEnd(all []status.Certificate) (first time.Time) {
	for _, c := range all {
		if first.IsZero() || c.NotAfter.Before(first) {
			first = c.NotAfter
		}
	}
	return first
}

// writer sends metrics to a scrape.
type writer chan<- prometheus.Metric

func (w writer) gauge(d *prometheus.Desc, v float64, labels ...string) {
	w <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

func (w writer) counter(d *prometheus.Desc, v float64, labels ...string) {
	w <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
}

// time writes nothing for the zero time.
func (w writer) time(d *prometheus.Desc, t time.Time, labels ...string) {
	if !t.IsZero() {
		w.gauge(d, float64(t.UnixMilli())/1000, labels...)
	}
}

// plugins writes each plugin once, also while an old process of it drains.
func (w writer) plugins(all []status.Plugin) {
	open, retired := map[string]int{}, map[string]int{}
	for _, p := range all {
		open[p.Name] += p.Open
		if p.Retired {
			retired[p.Name]++
			continue
		}
		w.gauge(pluginUp, truth(p.Status == "running" && p.Refused == ""), p.Name)
		for _, s := range pluginStatuses {
			w.gauge(pluginStatus, truth(p.Status == s), p.Name, s)
		}
		w.counter(pluginRestarts, float64(p.Restarts), p.Name)
		if p.LastExit != "" {
			w.gauge(pluginExit, 1, p.Name, exitClass(p.LastExit))
		}
	}
	for name, n := range open {
		w.gauge(pluginOpen, float64(n), name)
		w.gauge(pluginRetired, float64(retired[name]), name)
	}
}

// plainExit is what os.ProcessState prints of an end.
var plainExit = regexp.MustCompile(`^(exit status \d{1,3}|signal: [a-z]+( [a-z]+)*)`)

// exitClass bounds what a label may say of an exit.
func exitClass(exit string) string {
	if class := plainExit.FindString(exit); class != "" {
		return class
	}
	return "other"
}

func (w writer) pump(p status.Pump) {
	w.gauge(pumpWorkers, float64(p.Workers))
	w.gauge(pumpPaused, float64(p.Paused))
	w.gauge(pipesInUse, float64(p.PipesInUse))
	w.gauge(pipesIdle, float64(p.PipesIdle))
	w.counter(pipesMade, float64(p.PipesMade))
	w.counter(pipesRefused, float64(p.PipesRefused))
	w.counter(pipesSmall, float64(p.PipesSmall))
	w.gauge(buffersInUse, float64(p.BuffersInUse))
	w.counter(buffersMade, float64(p.BuffersMade))
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
