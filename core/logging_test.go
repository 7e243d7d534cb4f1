package core

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"

	"github.com/tunneld/tunneld/core/internal/config"
)

func TestLoggingFollowsTheConfiguration(t *testing.T) {
	var b bytes.Buffer
	l := newLogging(&b)
	derived := slog.New(l).With("plugin", "acme").WithGroup("g")
	derived.Info("one", "k", 1)
	if got := b.String(); !strings.Contains(got, "msg=one plugin=acme g.k=1") {
		t.Fatalf("text: %q", got)
	}
	b.Reset()
	l.set(config.Log{Format: "json", Level: slog.LevelWarn})
	derived.Info("hidden")
	if b.Len() > 0 || derived.Enabled(t.Context(), slog.LevelInfo) {
		t.Fatalf("info was logged at level warn: %q", b.String())
	}
	derived.Warn("two", "k", 2)
	var line struct {
		Msg    string
		Plugin string
		G      struct{ K int }
	}
	if err := json.Unmarshal(b.Bytes(), &line); err != nil {
		t.Fatalf("%v in %q", err, b.String())
	}
	if line.Msg != "two" || line.Plugin != "acme" || line.G.K != 2 {
		t.Fatalf("json: %q", b.String())
	}
}
