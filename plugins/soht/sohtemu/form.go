package sohtemu

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// Form is one request as it came in.
type Form struct {
	// Action is the field of that name.
	Action string
	// Raw is the request's body, byte for byte. It is the receiver's.
	Raw []byte
}

// parseForm splits a body at each '&' and undoes the form encoding of the
// values. A semicolon separates nothing: the original client sends it raw. Of
// a field that is given twice the first counts.
func parseForm(body string) (map[string]string, error) {
	fields := make(map[string]string)
	for part := range strings.SplitSeq(body, "&") {
		name, value, _ := strings.Cut(part, "=")
		value, err := url.QueryUnescape(value)
		if err != nil {
			return nil, fmt.Errorf("parse field %q: %w", name, err)
		}
		if _, twice := fields[name]; !twice {
			fields[name] = value
		}
	}
	return fields, nil
}

var errEncoding = errors.New("decode data: '#' without two hex digits")

// decodeData undoes the encoding of the data field: '#' and two hex digits of
// either case.
func decodeData(s string) ([]byte, error) {
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] != '#' {
			out = append(out, s[i])
			continue
		}
		if i+2 >= len(s) {
			return nil, errEncoding
		}
		high, low := hexDigit(s[i+1]), hexDigit(s[i+2])
		if high < 0 || low < 0 {
			return nil, errEncoding
		}
		out = append(out, byte(high<<4|low))
		i += 2
	}
	return out, nil
}

func hexDigit(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}
