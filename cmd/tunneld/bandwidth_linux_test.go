package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
)

// TestBandwidth: the block of a listener, a route or an upstream begins to limit a tunnel
// that is open, by whoever's hands its bytes go, and ends to, each way. Whoever waits is
// counted.
func TestBandwidth(t *testing.T) {
	// It takes a quarter of an hour where it is limited.
	body := strings.Repeat("0123456789abcdef", 1<<16)
	for _, plugin := range []string{"", "fixdirect", "fixrelay"} {
		t.Run("through "+plugin, func(t *testing.T) {
			far := startBackend(t)
			id, path, blocks := "direct.x", "direct", ""
			if plugin != "" {
				id, path, blocks = plugin+".x", strings.TrimPrefix(plugin, "fix"), thirdParty(t, plugin, "")
			}
			kind, _, _ := strings.Cut(id, ".")
			// config has a limit in one of the blocks.
			config := func(in, limit string) string {
				bandwidth := func(block string) string {
					if block != in {
						return ""
					}
					return "bandwidth {\n " + limit + " = \"1KiB\"\n }\n"
				}
				return withMetrics + blocks + fmt.Sprintf("upstream %q \"x\" {\n %s}\n", kind, bandwidth("upstream")) +
					listener("db", "127.0.0.1:0", far.addr, bandwidth("listener")) +
					fmt.Sprintf("route \"all\" {\n upstreams = [upstream.%s]\n %s}\n", id, bandwidth("route"))
			}
			d := startDaemon(t, config("", ""))
			client := d.dial(t, "tcp.db")
			server := far.next(t)
			for block, limit := range map[string]string{"listener": "up", "route": "total_down", "upstream": "total_up"} {
				from, to, direction := client, server, "up"
				if strings.HasSuffix(limit, "down") {
					from, to, direction = server, client, "down"
				}
				d.reload(t, config(block, limit))
				sent := make(chan error, 1)
				go func() {
					_, err := io.WriteString(from, body)
					sent <- err
				}()
				got := make([]byte, len(body))
				_, readErr := io.ReadFull(to, got[:1])
				eventually(t, "nothing waits for bandwidth", func() bool { return d.Status().Pump.Paused == 1 })
				d.reload(t, config("", ""))
				_, err := io.ReadFull(to, got[1:])
				if err := errors.Join(readErr, err, <-sent); err != nil || string(got) != body {
					t.Fatalf("%s of %s: other bytes than were sent, or %v", limit, block, err)
				}
				_, text := d.served(t, "/metrics")
				_, rest, _ := strings.Cut(text, fmt.Sprintf(`tunneld_tunnel_paused_seconds_total{direction=%q,listener="tcp.db",path=%q,route="all",upstream=%q} `, direction, path, id))
				var paused float64
				if _, err := fmt.Sscan(rest, &paused); err != nil || paused == 0 {
					t.Errorf("%s of %s: %v seconds of waiting are counted, %v", limit, block, paused, err)
				}
			}
		})
	}
}
