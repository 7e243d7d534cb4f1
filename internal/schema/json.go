package schema

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// JSON returns the values as a plugin is configured with them: keys sorted, no
// white space, durations in protobuf's form, sizes in bytes. Equal values give
// equal bytes. It holds secrets.
func JSON(v Values) []byte {
	text, err := encode(v)
	if err != nil {
		panic(fmt.Sprintf("schema: values that no decoder makes: %v", err))
	}
	return text
}

func encode(v any) ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	err := enc.Encode(jsonReady(v))
	return bytes.TrimRight(buf.Bytes(), "\n"), err
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
		return durationJSON(v)
	}
	return v
}

// TextJSON returns the JSON of a value that is written as a user would write it:
// "30s", "32KiB", "true"; lists and maps are JSON, of texts in that notation. The
// error does not repeat the text.
func TextJSON(t *pluginv1.Type, text string) (string, error) {
	value, problem, ok := ParseText(t.GetKind(), text)
	switch {
	case t.GetElement() != nil:
		raw, err := parseJSON([]byte(text))
		if err != nil {
			return "", err
		}
		if value, err = written(t, raw); err != nil {
			return "", err
		}
	case !ok:
		return "", fmt.Errorf("not a %s", t.GetKind().Text())
	case problem != "":
		return "", errors.New(problem)
	}
	out, err := encode(value)
	if err == nil {
		_, err = readValue(t, out)
	}
	return string(out), err
}

// LimitJSON returns the JSON of a minimum or maximum of the type, which is written as
// a user would write it: "1s", "64KiB", or a number of bytes or elements.
func LimitJSON(t *pluginv1.Type, text string) (string, error) {
	of, _ := limitType(t)
	if of == nil {
		return "", fmt.Errorf("a %s has none", t.GetKind().Text())
	}
	return TextJSON(of, text)
}

// written returns a value of JSON whose texts are in the notation of users.
func written(t *pluginv1.Type, raw any) (any, error) {
	switch raw := raw.(type) {
	case string:
		switch value, problem, ok := ParseText(t.GetKind(), raw); {
		case problem != "":
			return nil, errors.New(problem)
		case ok:
			return value, nil
		}
	case []any:
		list := make([]any, len(raw))
		var err error
		for i, e := range raw {
			if list[i], err = written(t.GetElement(), e); err != nil {
				return nil, err
			}
		}
		return list, nil
	case map[string]any:
		m := make(map[string]any, len(raw))
		var err error
		for k, e := range raw {
			if m[k], err = written(t.GetElement(), e); err != nil {
				return nil, err
			}
		}
		return m, nil
	}
	return raw, nil
}
