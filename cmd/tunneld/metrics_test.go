package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/nettest"
	"github.com/tunneld/tunneld/plugins/sapsocks/sapsocksemu"
)

// served asks the daemon's metrics server.
func (r *daemonRig) served(t *testing.T, path string) (int, string) {
	t.Helper()
	return get(t, fmt.Sprint(r.log.Await(t, 1, "msg", "serving metrics")[0]["address"]), path)
}

// get asks the metrics server that has the address.
func get(t *testing.T, address, path string) (int, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://%s%s", address, path), nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Close = true
	answer, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(body)
}

// counted waits until each series has its value.
func (r *daemonRig) counted(t *testing.T, series ...string) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		_, text := r.served(t, "/metrics")
		var missing []string
		for _, s := range series {
			if !strings.Contains(text, "\n"+s+"\n") {
				missing = append(missing, s)
			}
		}
		if len(missing) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("missing:\n%s\nin:\n%s", strings.Join(missing, "\n"), text)
		}
	}
}

const withMetrics = "metrics {\n address = \"127.0.0.1:0\"\n}\n"

// TestMetricsOfADaemon: the figures of one life, exact, and while the tunnel is
// open; a reload loses none of them.
func TestMetricsOfADaemon(t *testing.T) {
	s := startSapsocks(t, sapsocksemu.Options{})
	config := withMetrics + s.onprem("limits {\n max_connections = 1\n }")
	d := startDaemon(t, config)
	const (
		tunnels = `{listener="tcp.db",path="direct",route="all",upstream="sapsocks.onprem"}`
		up      = `tunneld_tunnel_bytes_total{direction="up",listener="tcp.db",method="copy",path="direct",route="all",upstream="sapsocks.onprem"} `
	)
	c := d.dial(t, "tcp.db")
	pingPong(t, c, "12345")
	d.counted(t,
		"tunneld_connections_active{listener=\"tcp.db\"} 1",
		"tunneld_tunnels_active"+tunnels+" 1",
		up+"5", // while it is open
		`tunneld_dial_duration_seconds_count{result="ok",upstream="sapsocks.onprem"} 1`,
		`tunneld_plugin_up{plugin="sapsocks"} 1`,
	)
	wantRefusal(t, "127.0.0.1", d.address(t, "tcp.db"))
	d.reload(t, strings.Replace(config, "= 1\n", "= 2\n", 1))
	d.reloadFails(t, config+"upstream \"sapsocks\" \"bad\" {}\n", "bad")
	pingPong(t, c, "678")
	closeWrite(t, c)
	if _, err := io.ReadAll(c); err != nil {
		t.Fatal(err)
	}
	d.counted(t,
		"tunneld_connections_active{listener=\"tcp.db\"} 0",
		"tunneld_connections_total{listener=\"tcp.db\"} 1",
		`tunneld_connections_refused_total{limit="limits.max_connections",listener="tcp.db"} 1`,
		"tunneld_tunnels_active"+tunnels+" 0",
		"tunneld_tunnels_total"+tunnels+" 1",
		`tunneld_tunnels_closed_total{listener="tcp.db",path="direct",reason="client_eof",route="all",upstream="sapsocks.onprem"} 1`,
		up+"8",
		`tunneld_config_reloads_total{outcome="success"} 1`,
		`tunneld_config_reloads_total{outcome="failure"} 1`,
		"tunneld_config_last_reload_successful 0",
	)
	if code, text := d.served(t, "/readyz"); code != http.StatusOK {
		t.Errorf("ready: %d %s", code, text)
	}
}

// TestMetricsMove to an address that overlaps with theirs, and stay where they
// are when the reload fails after that.
func TestMetricsMove(t *testing.T) {
	other, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	config := func(metrics, more string) string {
		return fmt.Sprintf("metrics {\n address = %q\n}\n", metrics) + more + `upstream "direct" "x" {}` + "\n" +
			listener("db", "127.0.0.1:0", "127.0.0.1:1", "") + route("all", "", "upstream.direct.x")
	}
	_, port := splitAddress(other.Addr().String())
	here, everywhere := "127.0.0.1:"+port, "0.0.0.0:"+port
	d := startDaemon(t, config(here, ""))
	if code, text := d.served(t, "/healthz"); code != http.StatusOK {
		t.Fatalf("at the start: %d %s", code, text)
	}
	d.reloadFails(t, config(everywhere, ""), "address already in use", ", in metrics:")
	if code, text := d.served(t, "/healthz"); code != http.StatusOK {
		t.Errorf("another program is in the way of the new address: %d %s", code, text)
	}
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	noSocket := fmt.Sprintf("control {\n address = \"unix://%s\"\n}\n", t.TempDir())
	d.reloadFails(t, config(everywhere, noSocket), ", in control:")
	if code, text := d.served(t, "/healthz"); code != http.StatusOK {
		t.Errorf("undone: %d %s", code, text)
	}
	for _, address := range []string{everywhere, here} {
		d.reload(t, config(address, ""))
		if code, text := d.served(t, "/healthz"); code != http.StatusOK {
			t.Errorf("on %s: %d %s", address, code, text)
		}
	}
}

// TestAddressesAreTraded between a listener and the metrics, in one reload; where
// that fails, both are where they were.
func TestAddressesAreTraded(t *testing.T) {
	echo, err := startEcho()
	if err != nil {
		t.Fatal(err)
	}
	defer echo.Close()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	config := func(metrics, db, more string) string {
		if metrics != "" {
			metrics = fmt.Sprintf("metrics {\n address = %q\n}\n", metrics)
		}
		return metrics + "upstream \"direct\" \"x\" {}\n" + listener("db", db, echo.Addr(), "open = true") + more + route("all", "", "upstream.direct.x")
	}
	const anywhere = "127.0.0.1:0"
	d := startDaemon(t, config(anywhere, anywhere, ""))
	one := fmt.Sprint(d.log.Await(t, 1, "msg", "serving metrics")[0]["address"])
	two := d.address(t, "tcp.db")
	_, port := splitAddress(two)
	tunnel := dialTCP(t, two)
	pingPong(t, tunnel, "before")
	noSocket := fmt.Sprintf("control {\n address = \"unix://%s\"\n}\n", t.TempDir())
	for _, step := range []struct {
		name, metrics, db string
		more              string // makes the reload fail
		wantMetrics       string // "": not looked at
		wantDB            string // "": wherever it is
	}{
		{"swapped", two, one, "", two, one},
		{"and a listener that cannot be bound", one, two, listener("taken", taken.Addr().String(), echo.Addr(), ""), two, one},
		{"and a control socket that cannot be bound", one, two, noSocket, two, one},
		{"and metrics that cannot be bound", taken.Addr().String(), two, noSocket, two, one},
		{"swapped back", one, two, "", one, two},
		{"the metrics go where a listener was", two, anywhere, "", two, ""},
		{"a listener goes where the metrics were", anywhere, two, "", "", two},
		{"the metrics go to an address that overlaps", "0.0.0.0:" + port, anywhere, "", two, ""},
		{"a listener takes it over", "", "[::]:" + port, "", "", two},
	} {
		if step.more != "" {
			d.reloadFails(t, config(step.metrics, step.db, step.more))
		} else {
			d.reload(t, config(step.metrics, step.db, ""))
		}
		if step.wantMetrics != "" {
			if code, text := get(t, step.wantMetrics, "/healthz"); code != http.StatusOK {
				t.Errorf("%s: %d %s", step.name, code, text)
			}
		}
		if step.wantDB == "" {
			step.wantDB = d.address(t, "tcp.db")
		}
		pingPong(t, dialTCP(t, step.wantDB), step.name)
	}
	pingPong(t, tunnel, "all the while")
}

// TestMetricsOfFailures: each by its stage and reason.
func TestMetricsOfFailures(t *testing.T) {
	d := startDaemon(t, withMetrics+`upstream "direct" "x" {}`+"\n"+
		listener("db", "127.0.0.1:0", "127.0.0.1:1", "")+
		"listener \"socks5\" \"apps\" {\n address = \"127.0.0.1:0\"\n"+nettest.OpenTargets+"}\n"+route("all", "", "upstream.direct.x"))
	d.dialReset(t, "tcp.db")
	send(t, d.dial(t, "socks5.apps"), "this is no SOCKS\r\n\r\n")
	d.counted(t,
		`tunneld_connection_failures_total{listener="tcp.db",reason="refused",route="all",stage="connect",upstream="direct.x"} 1`,
		`tunneld_handshake_failures_total{listener="socks5.apps",reason="protocol"} 1`,
		`tunneld_connections_active{listener="tcp.db"} 0`,
		`tunneld_connections_active{listener="socks5.apps"} 0`,
	)
}
