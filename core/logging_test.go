package core

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
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
	l.sink.queue.Flush()
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
	l.sink.queue.Flush()
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
	l.sink.queue.Flush()
	if got := strings.Count(b.String(), "msg=line\n"); got != 4*each {
		t.Errorf("%d whole lines of %d", got, 4*each)
	}
}

// stallingLog is a log whose reader reads when it is told to.
type stallingLog struct {
	goOn  chan struct{}
	wrote chan struct{} // closed with the second write
	mu    sync.Mutex
	count int
	text  bytes.Buffer
}

func (s *stallingLog) Write(b []byte) (int, error) {
	<-s.goOn
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.count++; s.count == 2 {
		close(s.wrote)
	}
	return s.text.Write(b)
}

// TestLogThatNobodyReads: what does not fit is counted in the status, and told in a
// line once it goes on.
func TestLogThatNobodyReads(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tunneld.hcl")
	config := `log { format = "json" }
listener "tcp" "a" {
  address = "127.0.0.1:0"
  target  = "127.0.0.1:1"
}
upstream "direct" "local" {}
route "all" { upstreams = [upstream.direct.local] }
`
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	log := &stallingLog{goOn: make(chan struct{}), wrote: make(chan struct{})}
	d, diags, err := Start(t.Context(), Options{ConfigPath: path, Log: log})
	if err != nil {
		t.Fatal(err, diags)
	}
	line := fmt.Sprintf("{\"long\":%q}\n", strings.Repeat("x", 100<<10))
	for d.Status().LogDropped < 10 {
		if _, err := io.WriteString(d.log.sink.queue, line); err != nil {
			t.Fatal(err)
		}
	}
	dropped := d.Status().LogDropped
	close(log.goOn)
	<-log.wrote // a stop does not wait for a writer that has stalled for long
	if err := d.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	var told uint64
	for text := range bytes.Lines(log.text.Bytes()) {
		if bytes.HasPrefix(text, []byte(`{"long"`)) {
			continue
		}
		var line struct {
			Level, Msg string
			Lines      uint64
		}
		if err := json.Unmarshal(text, &line); err != nil {
			t.Fatalf("%v in %.100q", err, text)
		}
		if line.Msg == "lines of the log were dropped" && line.Level == "WARN" {
			told += line.Lines
		}
	}
	if told != dropped {
		t.Errorf("%d lines were dropped, and the log says %d", dropped, told)
	}
	if !bytes.HasSuffix(bytes.TrimSpace(log.text.Bytes()), []byte("}")) || !bytes.Contains(log.text.Bytes(), []byte("stopping")) {
		t.Error("the end of the log is missing")
	}
}
