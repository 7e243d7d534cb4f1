package pluginhost

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// maxLine bounds a line of a plugin's output in bytes; the rest of a longer
	// one is dropped.
	maxLine = 16 << 10
	// maxTail is how much of a plugin's stderr an error shows, in bytes.
	maxTail = 4 << 10
	// maxLogDepth and maxLogAttrs bound what one log line may hold.
	maxLogDepth = 4
	maxLogAttrs = 64
)

// output takes what a plugin prints. Lines in the form of the SDK's log are
// logged at their level, all others as warnings, both within bounds: a plugin
// that prints without end fills neither the log nor the daemon's memory, and is
// not slowed down either.
type output struct {
	log *slog.Logger
	tap func(line []byte) // see Options.OnLine; may be nil
	// said is what the plugin says in calls.
	said texts

	mu      sync.Mutex
	tail    []byte    // of what was printed, log lines as people read them
	told    string    // the line that says most about an end: see telling
	plain   allowance // lines that nobody formatted for the log
	logged  allowance // lines of the SDK's log
	dropped int
}

func newOutput(log *slog.Logger) *output {
	return &output{
		log:    log,
		plain:  allowance{rate: 20, burst: 100},
		logged: allowance{rate: 1000, burst: 5000},
	}
}

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
	o.mu.Lock()
	dropped := o.dropped
	o.dropped = 0
	o.mu.Unlock()
	o.report(dropped)
}

// line takes one line of stream.
func (o *output) line(line []byte, stream string) {
	line = bytes.TrimRight(line, "\r")
	if len(line) == 0 {
		return
	}
	if o.tap != nil {
		o.tap(line)
	}
	r, isLog := parseLog(line)
	var plain string
	now := time.Now()
	o.mu.Lock()
	a := &o.plain
	wanted := true
	if isLog {
		a = &o.logged
		wanted = o.log.Enabled(context.Background(), r.level)
		// What only debug would show is not to drive the cause of an end out.
		if wanted || r.level >= slog.LevelInfo {
			o.keep(r.text())
		}
	} else {
		plain = clean(string(line), maxLine)
		o.keep(plain)
		o.tell(plain)
	}
	if !wanted {
		o.mu.Unlock()
		return
	}
	if !a.take(now) {
		o.dropped++
		o.mu.Unlock()
		return
	}
	dropped := o.dropped
	o.dropped = 0
	o.mu.Unlock()
	o.report(dropped)
	if isLog {
		o.log.LogAttrs(context.Background(), r.level, r.message, r.attrs...)
		return
	}
	o.log.Warn("plugin printed", "stream", stream, "line", plain)
}

func (o *output) report(dropped int) {
	if dropped > 0 {
		o.log.Warn("plugin prints too much: lines were dropped", "lines", dropped)
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
	line = clean(line, maxTelling)
	if line != "" && !isPanic(o.told) {
		o.told = line
	}
}

// maxTelling bounds the line that is told with an end, in bytes.
const maxTelling = 200

func isPanic(line string) bool {
	return strings.HasPrefix(line, "panic: ") || strings.HasPrefix(line, "fatal error: ")
}

// telling returns the line that says most about the process's end, or nothing.
func (o *output) telling() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.told
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

// allowance is a token bucket: rate a second, burst at once. It starts full.
type allowance struct {
	rate, burst float64
	used        float64
	at          time.Time
}

func (a *allowance) take(now time.Time) bool {
	a.used = max(0, a.used-a.rate*now.Sub(a.at).Seconds())
	a.at = now
	if a.used+1 > a.burst {
		return false
	}
	a.used++
	return true
}

// logLine is a line of the SDK's log.
type logLine struct {
	level   slog.Level
	message string
	attrs   []slog.Attr
}

// text is the line for people: what happened, and why.
func (l logLine) text() string {
	for _, a := range l.attrs {
		if slices.Contains(causes, a.Key) {
			return l.message + ": " + a.Value.String()
		}
	}
	return l.message
}

// causes are the attributes that say why: an error, a panic, and what was
// printed, as the SDK logs them.
var causes = []string{"err", "panic", "text"}

// ErrorText returns the text of a line of the SDK's log at level error, and
// nothing for any other line.
func ErrorText(line []byte) string {
	if l, ok := parseLog(line); ok && l.level >= slog.LevelError {
		return l.text()
	}
	return ""
}

// parseLog reads a line that slog's JSON handler wrote: an object with strings
// "level" and "msg". Anything else is not a log line.
func parseLog(line []byte) (logLine, bool) {
	if line[0] != '{' || !json.Valid(line) {
		return logLine{}, false
	}
	var head struct {
		Level *slog.Level `json:"level"`
		Msg   *string     `json:"msg"`
	}
	if err := json.Unmarshal(line, &head); err != nil || head.Level == nil || head.Msg == nil {
		return logLine{}, false
	}
	r := logLine{level: *head.Level, message: clean(*head.Msg, maxLine)}
	for _, a := range attributes(line, maxLogDepth) {
		switch a.Key {
		// The daemon's own handler writes the first three; "plugin" is what the
		// line is logged with and not the plugin's to say.
		case slog.TimeKey, slog.LevelKey, slog.MessageKey, "plugin":
		default:
			r.attrs = append(r.attrs, a)
		}
	}
	return r, true
}

// attributes turns the members of a JSON object, which is valid, into
// attributes in their order.
func attributes(object []byte, depth int) []slog.Attr {
	d := json.NewDecoder(bytes.NewReader(object))
	d.UseNumber()
	if _, err := d.Token(); err != nil {
		return nil
	}
	var attrs []slog.Attr
	for d.More() && len(attrs) < maxLogAttrs {
		key, err := d.Token()
		if err != nil {
			break
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			break
		}
		attrs = append(attrs, slog.Attr{Key: clean(fmt.Sprint(key), maxName), Value: attributeValue(value, depth)})
	}
	return attrs
}

func attributeValue(raw json.RawMessage, depth int) slog.Value {
	if len(raw) > 0 && raw[0] == '{' && depth > 1 {
		return slog.GroupValue(attributes(raw, depth-1)...)
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return slog.StringValue(clean(string(raw), maxLine))
	}
	switch v := v.(type) {
	case string:
		return slog.StringValue(clean(v, maxLine))
	case bool:
		return slog.BoolValue(v)
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return slog.Int64Value(n)
		}
		if f, err := v.Float64(); err == nil {
			return slog.Float64Value(f)
		}
	}
	return slog.StringValue(clean(string(raw), maxLine))
}
