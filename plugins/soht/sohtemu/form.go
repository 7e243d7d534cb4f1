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
	out := make([]byte, len(s))
	n := 0
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c == '#' {
			if i+2 >= len(s) {
				return nil, errEncoding
			}
			high, low := hexDigits[s[i+1]], hexDigits[s[i+2]]
			if high|low < 0 {
				return nil, errEncoding
			}
			c = byte(high)<<4 | byte(low)
			i += 2
		}
		out[n] = c
		n++
	}
	return out[:n], nil
}

// hexDigits is the value of each hex digit, and -1 of all else.
var hexDigits = func() (t [256]int8) {
	for c := range t {
		t[c] = -1
	}
	for i := range 10 {
		t['0'+i] = int8(i)
	}
	for i := range 6 {
		t['a'+i], t['A'+i] = int8(10+i), int8(10+i)
	}
	return t
}()
