package sdk

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"

	"google.golang.org/grpc"
)

// newLogger writes one JSON object a line: time, level, msg, then attributes.
// That is slog's own form, and the one the daemon reads.
func newLogger(w io.Writer, level string) *slog.Logger {
	var l slog.Level
	err := l.UnmarshalText([]byte(level))
	if level == "" {
		err = nil
	}
	log := slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: l}))
	if err != nil {
		log.Warn("unknown log level, info is used", "level", level)
	}
	return log
}

// maxLine bounds a printed line in the log; the rest of it becomes the next.
const maxLine = 8 << 10

// printCapture surfaces what the plugin prints after the handshake. go-plugin
// puts os.Stdout and os.Stderr into pipes that nobody has to read, so that
// prints vanish there, or block. The first call of the daemon's comes after
// that and before the plugin's own code: then they are replaced once more.
type printCapture struct {
	log  *slog.Logger
	once sync.Once

	mu      sync.Mutex // guards what follows
	writers []*os.File
	readers sync.WaitGroup
}

func newPrintCapture(log *slog.Logger) *printCapture { return &printCapture{log: log} }

func (c *printCapture) unary(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	c.once.Do(c.start)
	return handler(ctx, req)
}

func (c *printCapture) stream(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	c.once.Do(c.start)
	return handler(srv, stream)
}

func (c *printCapture) start() {
	c.capture(&os.Stdout, "stdout")
	c.capture(&os.Stderr, "stderr")
}

func (c *printCapture) capture(f **os.File, name string) {
	r, w, err := os.Pipe()
	if err != nil {
		c.log.Warn("what the plugin prints will be lost", "stream", name, "err", err)
		return
	}
	c.mu.Lock()
	c.writers = append(c.writers, w)
	c.mu.Unlock()
	*f = w
	c.readers.Go(func() {
		defer r.Close()
		out := &lineLogger{log: c.log.With("stream", name), msg: "printed by the plugin"}
		_, _ = io.Copy(out, r)
		out.flush()
	})
}

// close ends the capture and waits until all that was printed is in the log.
func (c *printCapture) close(ctx context.Context) {
	c.once.Do(func() {})
	c.mu.Lock()
	writers := c.writers
	c.mu.Unlock()
	for _, w := range writers {
		_ = w.Close()
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.readers.Wait()
	}()
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// lineLogger turns what is written to it into one warning a line. It is used by
// one goroutine at a time.
type lineLogger struct {
	log  *slog.Logger
	msg  string
	rest []byte
}

func (l *lineLogger) Write(b []byte) (int, error) {
	l.rest = append(l.rest, b...)
	for {
		line, ok := l.next()
		if !ok {
			return len(b), nil
		}
		l.emit(line)
	}
}

// next takes the next line off rest, if there is a whole one.
func (l *lineLogger) next() ([]byte, bool) {
	i := bytes.IndexByte(l.rest, '\n')
	switch {
	case i < 0 && len(l.rest) < maxLine:
		return nil, false
	case i < 0 || i > maxLine:
		line := l.rest[:maxLine]
		l.rest = l.rest[maxLine:]
		return line, true
	}
	line := l.rest[:i]
	l.rest = l.rest[i+1:]
	return line, true
}

func (l *lineLogger) emit(line []byte) {
	if text := strings.TrimSpace(strings.ToValidUTF8(string(line), "\uFFFD")); text != "" {
		l.log.Warn(l.msg, "text", text)
	}
}

func (l *lineLogger) flush() {
	l.emit(l.rest)
	l.rest = nil
}
