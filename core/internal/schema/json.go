package schema

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strconv"
	"time"

	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// JSON returns the values as a plugin is configured with them: keys sorted, no
// white space, durations in protobuf's form, sizes in bytes. Equal values give
// equal bytes. It holds secrets.
func JSON(v Values) []byte {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(jsonReady(v)); err != nil {
		panic(fmt.Sprintf("schema: values that no decoder makes: %v", err))
	}
	return bytes.TrimRight(buf.Bytes(), "\n")
}

// Hash returns a hash of an upstream's name and JSON, in hex. It is no secret,
// but a weak password could be guessed from it: it has no place in a log.
func Hash(name string, json []byte) string {
	h := sha256.New()
	h.Write([]byte(strconv.Itoa(len(name)) + ":" + name))
	h.Write(json)
	return hex.EncodeToString(h.Sum(nil))
}

func jsonReady(v any) any {
	switch v := v.(type) {
	case Values:
		return jsonReady(map[string]any(v))
	case map[string]any:
		m := make(map[string]any, len(v))
		for k, e := range v {
			m[k] = jsonReady(e)
		}
		return m
	case []any:
		l := make([]any, len(v))
		for i, e := range v {
			l[i] = jsonReady(e)
		}
		return l
	case time.Duration:
		return DurationJSON(v)
	}
	return v
}

// defaults returns the values of a body in which nothing is written.
func defaults(block *pluginv1.Block) Values {
	v := Values{}
	for _, a := range block.GetAttributes() {
		if d, ok := defaultValue(a); ok {
			v[a.GetName()] = d
		}
	}
	for _, b := range block.GetBlocks() {
		if b.GetNesting() == pluginv1.Nesting_NESTING_SINGLE {
			v[b.GetName()] = defaults(b.GetBody())
		}
	}
	return v
}

// defaultValue returns the attribute's default; Check has seen that it parses.
func defaultValue(a *pluginv1.Attribute) (any, bool) {
	if a.GetDefaultJson() == "" {
		return nil, false
	}
	v, err := parseJSON(a.GetType(), a.GetDefaultJson())
	return v, err == nil
}

// parseJSON reads a value of the type from the JSON that carries it.
func parseJSON(t *pluginv1.Type, text string) (any, error) {
	dec := json.NewDecoder(bytes.NewReader([]byte(text)))
	dec.UseNumber()
	var raw any
	if err := dec.Decode(&raw); err != nil {
		return nil, fmt.Errorf("not JSON: %w", err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, fmt.Errorf("more than one JSON value")
	}
	return fromJSON(t, raw)
}

func fromJSON(t *pluginv1.Type, raw any) (any, error) {
	switch k := t.GetKind(); raw := raw.(type) {
	case string:
		switch k {
		case pluginv1.Kind_KIND_STRING:
			return raw, nil
		case pluginv1.Kind_KIND_DURATION:
			return parseDurationJSON(raw)
		}
	case bool:
		if k == pluginv1.Kind_KIND_BOOL {
			return raw, nil
		}
	case json.Number:
		return numberFromJSON(k, raw)
	case []any:
		if k != pluginv1.Kind_KIND_LIST {
			return nil, wrongJSON(k)
		}
		list := make([]any, len(raw))
		for i, e := range raw {
			var err error
			if list[i], err = fromJSON(t.GetElement(), e); err != nil {
				return nil, fmt.Errorf("element %d: %w", i, err)
			}
		}
		return list, nil
	case map[string]any:
		if k != pluginv1.Kind_KIND_MAP {
			return nil, wrongJSON(k)
		}
		m := make(map[string]any, len(raw))
		for key, e := range raw {
			var err error
			if m[key], err = fromJSON(t.GetElement(), e); err != nil {
				return nil, fmt.Errorf("key %q: %w", key, err)
			}
		}
		return m, nil
	}
	return nil, wrongJSON(t.GetKind())
}

func numberFromJSON(k pluginv1.Kind, raw json.Number) (any, error) {
	switch k {
	case pluginv1.Kind_KIND_FLOAT:
		f, err := raw.Float64()
		if err != nil || math.IsInf(f, 0) {
			return nil, wrongJSON(k)
		}
		return f, nil
	case pluginv1.Kind_KIND_INT, pluginv1.Kind_KIND_SIZE:
		n, err := raw.Int64()
		if err != nil || n < -maxInt || n > maxInt || k == pluginv1.Kind_KIND_SIZE && n < 0 {
			return nil, wrongJSON(k)
		}
		return n, nil
	}
	return nil, wrongJSON(k)
}

func wrongJSON(k pluginv1.Kind) error { return fmt.Errorf("not the JSON of a %s", k.Text()) }
