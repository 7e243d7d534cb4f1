package pluginhost

import (
	"log/slog"
	"testing"

	"github.com/tunneld/tunneld/plugins/sdk/sdktest/fixture"
)

// TestLogLevelOfARunningPlugin: what a reload wants of the log, the plugins that are
// running give.
func TestLogLevelOfARunningPlugin(t *testing.T) {
	var level slog.LevelVar
	level.Set(slog.LevelError)
	log := newJournal(t)
	h := newHost(t, func(o *Options) {
		o.Log = slog.New(slog.NewJSONHandler(log, &slog.HandlerOptions{Level: &level}))
	})
	p := h.start(t, Spec{Name: fixture.DirectName, Bundled: true})
	level.Set(slog.LevelDebug)
	configure(t, p, 1, `{}`)
	log.await(t, `"level":"DEBUG"`, `"msg":"started"`)
}
