package core

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"strings"
	"sync"
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

// TestLoggingWritesOneAtATime, also while the handler is replaced: the writer
// has no lock of its own.
func TestLoggingWritesOneAtATime(t *testing.T) {
	var b bytes.Buffer
	l := newLogging(&b)
	log := slog.New(l)
	var loggers sync.WaitGroup
	const each = 500
	for range 4 {
		loggers.Go(func() {
			for range each {
				log.Info("line")
			}
		})
	}
	loggers.Go(func() {
		for range each {
			l.set(config.Log{})
		}
	})
	loggers.Wait()
	if got := strings.Count(b.String(), "msg=line\n"); got != 4*each {
		t.Errorf("%d whole lines of %d", got, 4*each)
	}
}
