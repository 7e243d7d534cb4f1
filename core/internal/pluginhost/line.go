package pluginhost

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
)

// maxLogDepth and maxLogAttrs bound what one log line may hold.
const (
	maxLogDepth = 4
	maxLogAttrs = 64
)

// Line is a line that a plugin printed.
type Line struct {
	Stream string // "stdout" or "stderr"
	// Raw is the line as it came, at most 16 KiB of it; it is not to be kept.
	Raw []byte
	// IsLog says that it is in the form of the SDK's log, at Level and with Attrs.
	IsLog bool
	Level slog.Level
	// Message is the log's, or the line itself, fit to be shown.
	Message string
	Attrs   []slog.Attr
}

// Text is the line for people: what happened, and why.
func (l Line) Text() string {
	for _, a := range l.Attrs {
		if slices.Contains(causes, a.Key) {
			return l.Message + ": " + a.Value.String()
		}
	}
	return l.Message
}

// causes are the attributes that say why: an error, a panic, and what was
// printed, as the SDK logs them.
var causes = []string{"err", "panic", "text"}

// readLine reads a line, which is not empty. One that slog's JSON handler wrote is an
// object with strings "level" and "msg"; anything else is not of a log.
func readLine(raw []byte, stream string) Line {
	plain := func() Line { return Line{Stream: stream, Raw: raw, Message: clean(string(raw), maxLine)} }
	if raw[0] != '{' || !json.Valid(raw) {
		return plain()
	}
	var head struct {
		Level *slog.Level `json:"level"`
		Msg   *string     `json:"msg"`
	}
	if err := json.Unmarshal(raw, &head); err != nil || head.Level == nil || head.Msg == nil {
		return plain()
	}
	l := Line{Stream: stream, Raw: raw, IsLog: true, Level: *head.Level, Message: clean(*head.Msg, maxLine)}
	for _, a := range attributes(raw, maxLogDepth) {
		switch a.Key {
		// The daemon's own handler writes the first three; "plugin" is what the
		// line is logged with and not the plugin's to say.
		case slog.TimeKey, slog.LevelKey, slog.MessageKey, "plugin":
		default:
			l.Attrs = append(l.Attrs, a)
		}
	}
	return l
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
