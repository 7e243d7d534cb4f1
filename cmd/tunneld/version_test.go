package main

import (
	"strings"
	"testing"

	"github.com/tunneld/tunneld/internal/version"
	"github.com/tunneld/tunneld/plugins/sapsocks/sapsocksemu"
)

// TestOneVersion: the command, the daemon's status and metrics, and each bundled plugin
// say the same.
func TestOneVersion(t *testing.T) {
	want := version.Text()
	if status, stdout, _ := tunneld(t, "version"); status != exitOK || !strings.HasPrefix(stdout, "tunneld "+want+" (") {
		t.Errorf("the command says %s", stdout)
	}
	s := startSapsocks(t, sapsocksemu.Options{})
	d := startDaemon(t, withMetrics+s.onprem(""))
	status := d.Status()
	if status.Version != want || len(status.Plugins) != 1 || status.Plugins[0].Version != want {
		t.Errorf("the status says %s, and of plugins %+v; want %s", status.Version, status.Plugins, want)
	}
	if _, text := d.served(t, "/metrics"); !strings.Contains(text, `version="`+want+`"} 1`) {
		t.Errorf("the metrics do not say %s", want)
	}
	_, list, stderr := tunneld(t, "plugin", "list")
	for _, p := range bundled() {
		found := false
		for line := range strings.Lines(list) {
			f := strings.Fields(line)
			found = found || len(f) > 2 && f[0] == p.Name && f[1] == want
		}
		if !found {
			t.Errorf("%s does not say %s:\n%s%s", p.Name, want, list, stderr)
		}
	}
}
