package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tunneld/tunneld/core"
	"github.com/tunneld/tunneld/plugins/azrelay/azrelayemu"
)

// TestKeyLog through a daemon and a plugin's process: the keys are written if they are
// asked for twice, each start and reload warns, and by the configuration alone nothing starts.
func TestKeyLog(t *testing.T) {
	s, err := azrelayemu.Start(azrelayemu.Options{
		TLS:               true,
		Forward:           []azrelayemu.Forward{{HybridConnection: "hc1", Target: runEcho(t).Addr()}},
		HybridConnections: map[string]azrelayemu.HybridConnection{"hc1": {Anonymous: true}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	dir := t.TempDir()
	ca, keys := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "keys.log")
	if err := os.WriteFile(ca, s.CA(), 0o600); err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf(`
upstream "azrelay" "bridge" {
  endpoint          = %q
  hybrid_connection = "hc1"
  tls {
    ca_file      = %q
    max_version  = "1.3"
    key_log_file = %q
  }
}
`, s.URL(), ca, keys) + listener("l", "127.0.0.1:0", "db.corp:5432", "") + route("r", "", "upstream.azrelay.bridge")

	once := filepath.Join(dir, "once.hcl")
	if err := os.WriteFile(once, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	diags, err := core.Validate(t.Context(), options(once))
	if text := told(diags); err != nil || !diags.HasErrors() || !strings.Contains(text, "TUNNELD_KEY_LOG is not 1") || !strings.Contains(text, "line 8") {
		t.Errorf("%v\n%s", err, text)
	}

	t.Setenv("TUNNELD_KEY_LOG", "1")
	d := startDaemon(t, config)
	d.log.Await(t, 1, "msg", "configuration problem", "level", "WARN", "summary", "the keys of TLS sessions are written to a file")
	pingPong(t, d.dial(t, "tcp.l"), "recorded")
	b, err := os.ReadFile(keys)
	if err != nil {
		t.Fatal(err)
	}
	for _, label := range []string{"CLIENT_HANDSHAKE_TRAFFIC_SECRET ", "CLIENT_TRAFFIC_SECRET_0 ", "SERVER_TRAFFIC_SECRET_0 "} {
		if !strings.Contains("\n"+string(b), "\n"+label) {
			t.Errorf("no %s in %s", label, b)
		}
	}
	if out := d.Reload(t.Context()); !strings.Contains(out.Diagnostics, "the keys of TLS sessions are written to a file") {
		t.Errorf("a reload says\n%s", out.Diagnostics)
	}
}
