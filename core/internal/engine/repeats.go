package engine

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

const (
	// repeatsLogged is how many lines that are alike the log has in repeatsFor; the
	// others are counted in one that follows. Whoever knocks at a closed door would
	// fill the disk otherwise.
	repeatsLogged = 10
	repeatsFor    = time.Minute
)

// repeatKey is what lines have in common that are alike. Its values are names of
// the configuration and of closed lists.
type repeatKey struct{ message, listener, upstream, reason string }

// repeats keeps lines that are alike from filling the log. The first of them begins
// a time of repeatsFor, at whose end those are counted that were left out.
type repeats struct {
	log *slog.Logger

	mu    sync.Mutex
	lines map[repeatKey]*repeat
}

type repeat struct {
	level   slog.Level
	logged  int
	leftOut uint64
	over    *time.Timer
}

func newRepeats(log *slog.Logger) *repeats {
	return &repeats{log: log, lines: map[repeatKey]*repeat{}}
}

// write logs a line, unless there were enough of its like. attrs are asked for where
// it is logged.
func (r *repeats) write(level slog.Level, key repeatKey, attrs func() []any) {
	if r.log.Enabled(context.Background(), level) && r.take(level, key) {
		r.log.Log(context.Background(), level, key.message, attrs()...)
	}
}

// take says whether the line is to be logged.
func (r *repeats) take(level slog.Level, key repeatKey) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.lines[key]
	if l == nil {
		l = &repeat{level: level}
		l.over = time.AfterFunc(repeatsFor, func() { r.end(key, l) })
		r.lines[key] = l
	}
	if l.logged == repeatsLogged {
		l.leftOut++
		return false
	}
	l.logged++
	return true
}

// end is that of l's time. It logs how many lines were left out.
func (r *repeats) end(key repeatKey, l *repeat) {
	r.mu.Lock()
	ours := r.lines[key] == l
	if ours {
		delete(r.lines, key)
	}
	leftOut := l.leftOut
	r.mu.Unlock()
	if !ours || leftOut == 0 {
		return
	}
	attrs := []any{"like", key.message}
	for _, of := range [][2]string{{"listener", key.listener}, {"upstream", key.upstream}, {"reason", key.reason}} {
		if of[1] != "" {
			attrs = append(attrs, of[0], of[1])
		}
	}
	r.log.Log(context.Background(), l.level, "more lines like these were left out", append(attrs, "lines", leftOut, "within", repeatsFor)...)
}

// close ends the times of all lines. It is called once nothing is written any more.
func (r *repeats) close() {
	r.mu.Lock()
	lines := make(map[repeatKey]*repeat, len(r.lines))
	for key, l := range r.lines {
		l.over.Stop()
		lines[key] = l
	}
	r.mu.Unlock()
	for key, l := range lines {
		r.end(key, l)
	}
}
