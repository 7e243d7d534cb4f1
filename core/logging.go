package core

import (
	"context"
	"io"
	"log/slog"
	"sync/atomic"

	"github.com/tunneld/tunneld/core/internal/config"
	"github.com/tunneld/tunneld/internal/logqueue"
)

// logging is a handler whose level and format change with the configuration, also
// for the loggers that were derived from it before. Logging never waits for the
// reader of the log.
type logging struct {
	sink  *sink
	apply []func(slog.Handler) slog.Handler // WithAttrs and WithGroup, in order
}

type sink struct {
	queue   *logqueue.Queue
	level   slog.LevelVar
	handler atomic.Pointer[slog.Handler]
}

func newLogging(w io.Writer) *logging {
	l := &logging{sink: &sink{}}
	l.sink.queue = logqueue.New(w, l.lost)
	l.set(config.Log{})
	return l
}

// lost tells of lines that nobody will read.
func (l *logging) lost(lines uint64) {
	slog.New(l).Warn("lines of the log were dropped", "lines", lines,
		"err", "the log could not be written for a while", "hint", "the reader of the daemon's standard error is too slow, or could not pass it on")
}

func (l *logging) set(c config.Log) {
	l.sink.level.Set(c.Level)
	opts := &slog.HandlerOptions{Level: &l.sink.level, ReplaceAttr: spellDurations}
	var h slog.Handler = slog.NewTextHandler(l.sink.queue, opts)
	if c.Format == "json" {
		h = slog.NewJSONHandler(l.sink.queue, opts)
	}
	l.sink.handler.Store(&h)
}

// spellDurations writes durations with their unit in JSON as well.
func spellDurations(_ []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() == slog.KindDuration {
		a.Value = slog.StringValue(a.Value.Duration().String())
	}
	return a
}

// Enabled implements slog.Handler.
func (l *logging) Enabled(_ context.Context, level slog.Level) bool {
	return level >= l.sink.level.Level()
}

// Handle implements slog.Handler.
func (l *logging) Handle(ctx context.Context, r slog.Record) error {
	h := *l.sink.handler.Load()
	for _, f := range l.apply {
		h = f(h)
	}
	return h.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (l *logging) WithAttrs(attrs []slog.Attr) slog.Handler {
	return l.with(func(h slog.Handler) slog.Handler { return h.WithAttrs(attrs) })
}

// WithGroup implements slog.Handler.
func (l *logging) WithGroup(name string) slog.Handler {
	return l.with(func(h slog.Handler) slog.Handler { return h.WithGroup(name) })
}

func (l *logging) with(f func(slog.Handler) slog.Handler) slog.Handler {
	return &logging{sink: l.sink, apply: append(l.apply[:len(l.apply):len(l.apply)], f)}
}
