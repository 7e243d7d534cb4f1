package sdk

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"

	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// maxInt is the largest number that every JSON reader keeps exact.
const maxInt = 1 << 53

// defaultValue turns a default in the user's notation into the value that JSON
// carries.
func defaultValue(t *pluginv1.Type, text string) (any, error) {
	switch t.GetKind() {
	case pluginv1.Kind_KIND_STRING:
		return text, nil
	case pluginv1.Kind_KIND_DURATION, pluginv1.Kind_KIND_SIZE:
		return userValue(t, text)
	}
	v, err := parseJSON([]byte(text))
	if err != nil {
		return nil, fmt.Errorf("not a %s", t.GetKind().Text())
	}
	return userValue(t, v)
}

// userValue turns a value as a user writes it into what JSON carries: "30s"
// and "32KiB" change their form, all else is checked.
func userValue(t *pluginv1.Type, v any) (any, error) {
	bad := fmt.Errorf("not a %s", t.GetKind().Text())
	switch t.GetKind() {
	case pluginv1.Kind_KIND_STRING:
		if s, ok := v.(string); ok {
			return s, nil
		}
	case pluginv1.Kind_KIND_BOOL:
		if b, ok := v.(bool); ok {
			return b, nil
		}
	case pluginv1.Kind_KIND_INT:
		if n, ok := v.(json.Number); ok {
			return wholeNumber(n)
		}
	case pluginv1.Kind_KIND_FLOAT:
		if n, ok := v.(json.Number); ok {
			return n.Float64()
		}
	case pluginv1.Kind_KIND_DURATION:
		if s, ok := v.(string); ok {
			d, err := time.ParseDuration(s)
			if err != nil {
				return nil, errors.New(`not a duration: write it as in "30s"`)
			}
			return formatDuration(d), nil
		}
	case pluginv1.Kind_KIND_SIZE:
		switch v := v.(type) {
		case string:
			return ParseSize(v)
		case json.Number:
			return wholeNumber(v)
		}
	case pluginv1.Kind_KIND_LIST:
		if l, ok := v.([]any); ok {
			out := make([]any, len(l))
			for i, e := range l {
				var err error
				if out[i], err = userValue(t.GetElement(), e); err != nil {
					return nil, err
				}
			}
			return out, nil
		}
	case pluginv1.Kind_KIND_MAP:
		if m, ok := v.(map[string]any); ok {
			out := make(map[string]any, len(m))
			for k, e := range m {
				var err error
				if out[k], err = userValue(t.GetElement(), e); err != nil {
					return nil, err
				}
			}
			return out, nil
		}
	}
	return nil, bad
}

// parseJSON reads exactly one value; numbers keep their digits. Its error is
// not for users: encoding/json quotes what it read.
func parseJSON(b []byte) (any, error) {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return nil, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one value")
	}
	return v, nil
}

// wholeNumber reads a number without fraction within ±2^53. A fraction or an
// exponent that leaves a whole number ("1e3", "5.0") is one.
func wholeNumber(n json.Number) (int64, error) {
	i, err := strconv.ParseInt(n.String(), 10, 64)
	if err != nil {
		f, ferr := n.Float64()
		if ferr != nil || f != math.Trunc(f) || math.Abs(f) > maxInt {
			return 0, errors.New("must be a whole number within ±2^53")
		}
		i = int64(f)
	}
	if i > maxInt || i < -maxInt {
		return 0, errors.New("must be a whole number within ±2^53")
	}
	return i, nil
}

var durationRule = regexp.MustCompile(`^-?[0-9]{1,12}(\.[0-9]{1,9})?s$`)

// parseDuration reads the form of google.protobuf.Duration in JSON.
func parseDuration(s string) (time.Duration, error) {
	if !durationRule.MatchString(s) {
		return 0, errors.New(`must be seconds in decimal with the suffix "s"`)
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		return 0, errors.New("is too long a duration")
	}
	return d, nil
}

// formatDuration writes the form that parseDuration reads.
func formatDuration(d time.Duration) string {
	sign := ""
	u := uint64(d)
	if d < 0 {
		sign, u = "-", -u
	}
	s := strconv.FormatUint(u/1e9, 10)
	if frac := u % 1e9; frac != 0 {
		s += "." + strings.TrimRight(fmt.Sprintf("%09d", frac), "0")
	}
	return sign + s + "s"
}
