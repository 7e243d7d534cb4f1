package pluginhost

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"log/slog"
	"strings"
	"sync"
)

const (
	// maxLine bounds a line of a plugin's output in bytes; the rest of a longer
	// one is dropped.
	maxLine = 16 << 10
	// maxTail is how much of a plugin's stderr an error shows, in bytes.
	maxTail = 4 << 10
)

// output takes what a plugin prints, by lines. Of what was printed last it keeps as
// much as an error shows.
type output struct {
	log     *slog.Logger
	watcher Watcher

	mu    sync.Mutex
	tail  []byte // of what was printed, log lines as people read them
	cause string // the line that says most about an end: see causeLine
}

func newOutput(log *slog.Logger, w Watcher) *output { return &output{log: log, watcher: w} }

// copy takes the lines of r until its end. stream names it.
func (o *output) copy(r io.Reader, stream string) {
	b := bufio.NewReaderSize(r, maxLine)
	for {
		line, more, err := b.ReadLine()
		if err != nil {
			break
		}
		o.line(line, stream)
		for more && err == nil {
			_, more, err = b.ReadLine()
		}
		if err != nil {
			break
		}
	}
	o.watcher.Silent()
}

// line takes one line of stream.
func (o *output) line(line []byte, stream string) {
	line = bytes.TrimRight(line, "\r")
	if len(line) == 0 {
		return
	}
	l := readLine(line, stream)
	o.watcher.Printed(l)
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case !l.IsLog:
		o.keep(l.Message)
		o.tell(l.Message)
	// What only debug would show is not to drive the cause of an end out.
	case l.Level >= slog.LevelInfo || o.log.Enabled(context.Background(), l.Level):
		o.keep(l.Text())
	}
}

// keep appends to the tail. It is called with mu held.
func (o *output) keep(line string) {
	o.tail = append(append(o.tail, line...), '\n')
	if n := len(o.tail) - maxTail; n > 0 {
		o.tail = append(o.tail[:0], o.tail[n:]...)
	}
}

// last returns the end of what was printed, at most maxTail bytes.
func (o *output) last() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return strings.TrimSpace(strings.ToValidUTF8(string(o.tail), "\uFFFD"))
}

// tell notes the line if it says more about the process's end than those before
// it: a panic's first, else the last that is not one of the log. It is called
// with mu held.
func (o *output) tell(line string) {
	line = clean(line, maxCause)
	if line != "" && !isPanic(o.cause) {
		o.cause = line
	}
}

// maxCause bounds the line that is reported with the end of a process, in bytes.
const maxCause = 200

func isPanic(line string) bool {
	return strings.HasPrefix(line, "panic: ") || strings.HasPrefix(line, "fatal error: ")
}

// causeLine returns the line that says most about the process's end, or nothing.
func (o *output) causeLine() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.cause
}

// writer returns a writer of stream's bytes, for one goroutine.
func (o *output) writer(stream string) io.Writer { return &lineWriter{o: o, stream: stream} }

// lineWriter cuts what is written into lines.
type lineWriter struct {
	o       *output
	stream  string
	partial []byte
}

func (w *lineWriter) Write(b []byte) (int, error) {
	n := len(b)
	for len(b) > 0 {
		i := bytes.IndexByte(b, '\n')
		part := b
		if i >= 0 {
			part, b = b[:i], b[i+1:]
		} else {
			b = nil
		}
		w.partial = append(w.partial, part[:min(len(part), maxLine-len(w.partial))]...)
		if i >= 0 {
			w.o.line(w.partial, w.stream)
			w.partial = w.partial[:0]
		}
	}
	return n, nil
}
