// Package logtest is a log that tests can search and wait on. It reads the lines of
// slog's JSON handler, of this process or another.
package logtest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"sync"
	"testing"
	"time"
)

// Log keeps what is written to it. It may be used by several goroutines at once.
type Log struct {
	patience time.Duration

	mu    sync.Mutex
	all   bytes.Buffer
	part  []byte // of a line that has not ended
	lines []map[string]any
	more  chan struct{} // closed and replaced with every write
}

// New makes a log whose Await waits as long as patience.
func New(patience time.Duration) *Log {
	return &Log{patience: patience, more: make(chan struct{})}
}

// Write takes what was logged, in whatever pieces it comes. A line that is no JSON is
// kept for String alone.
func (l *Log) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all.Write(b)
	l.part = append(l.part, b...)
	for {
		line, rest, found := bytes.Cut(l.part, []byte("\n"))
		if !found {
			break
		}
		var values map[string]any
		if err := json.Unmarshal(line, &values); err == nil {
			l.lines = append(l.lines, values)
		}
		l.part = rest
	}
	close(l.more)
	l.more = make(chan struct{})
	return len(b), nil
}

// String is all that was written.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.String()
}

// Matching returns the lines in which every pair holds: a key, and its value as printed.
func (l *Log) Matching(pairs ...string) []map[string]any {
	lines, _ := l.matching(pairs)
	return lines
}

// Await waits until n lines match.
func (l *Log) Await(t *testing.T, n int, pairs ...string) []map[string]any {
	t.Helper()
	late := time.After(l.patience)
	for {
		got, more := l.matching(pairs)
		if len(got) >= n {
			return got
		}
		select {
		case <-more:
		case <-late:
			t.Fatalf("the log does not have %d lines with %q:\n%s", n, pairs, l)
		}
	}
}

func (l *Log) matching(pairs []string) (out []map[string]any, more <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range l.lines {
		ok := true
		for i := 0; i < len(pairs); i += 2 {
			ok = ok && fmt.Sprint(line[pairs[i]]) == pairs[i+1]
		}
		if ok {
			out = append(out, line)
		}
	}
	return out, l.more
}
