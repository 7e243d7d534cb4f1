package pluginhost

import (
	"testing"

	"github.com/tunneld/tunneld/core/internal/tunnel"
)

// TestTargetWithoutItsDot: a plugin's far end compares names.
func TestTargetWithoutItsDot(t *testing.T) {
	for host, want := range map[string]string{"db.corp.": "db.corp", "db.corp": "db.corp", "fd00::1": "fd00::1"} {
		if got := request(tunnel.Dial{Target: tunnel.Target{Host: host, Port: 1}}).GetTarget().GetHost(); got != want {
			t.Errorf("%q: %q, want %q", host, got, want)
		}
	}
}
