package listen

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
)

// maxHeader bounds a request's line and headers, in bytes; usualHeader is what
// nearly all of them fit into.
const (
	maxHeader   = 64 << 10
	usualHeader = 1 << 10
)

var (
	errHeaderTooLarge = fmt.Errorf("the request's headers are larger than %d bytes", maxHeader)
	errNotHTTP        = errors.New("this is not an HTTP request")
)

// strangerError is a first byte that begins no request.
type strangerError byte

func (e strangerError) Error() string { return fmt.Sprintf("a request begins with 0x%02x", byte(e)) }

// readHead reads the lines of a request up to the empty one (RFC 9112, section
// 2.1) and returns them, and what was read behind it. The error is a
// strangerError as soon as the first byte is there, io.EOF where there was none,
// and io.ErrUnexpectedEOF where the client has closed later.
func readHead(r io.Reader) (head, ahead []byte, err error) {
	b := make([]byte, 0, usualHeader)
	var s headScan
	for {
		if len(b) == cap(b) {
			if len(b) >= maxHeader {
				return nil, nil, errHeaderTooLarge
			}
			b = append(make([]byte, 0, min(2*cap(b), maxHeader)), b...)
		}
		n, err := r.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		found, foreign := s.scan(b)
		switch {
		case foreign != nil:
			return nil, nil, foreign
		case found:
			return b[s.start:s.next], bytes.Clone(b[s.next:]), nil
		case errors.Is(err, io.EOF) && len(b) > 0:
			return nil, nil, io.ErrUnexpectedEOF
		case err != nil:
			return nil, nil, err
		}
	}
}

// headScan looks for the end of a request's lines, each byte once.
type headScan struct {
	start int // of the request: empty lines before it are skipped (section 2.2)
	line  int // of the line that is looked at
	next  int // byte to look at; once the end is found, the first behind it
}

func (s *headScan) scan(b []byte) (found bool, err error) {
	for ; s.next < len(b); s.next++ {
		c := b[s.next]
		if s.next == s.start {
			switch {
			case c == '\r' || c == '\n':
				s.start++
				s.line = s.start
				continue
			case c < 'A' || c > 'Z':
				return false, strangerError(c)
			}
		}
		if c != '\n' {
			continue
		}
		if s.next == s.line || s.next == s.line+1 && b[s.line] == '\r' {
			s.next++
			return true, nil
		}
		s.line = s.next + 1
	}
	return false, nil
}

// request is the first line of a request (RFC 9112, section 3).
type request struct{ method, target, version string }

// parseHead parses the first line and checks that the others are header fields,
// of which none matters here.
func parseHead(head []byte) (request, error) {
	first, rest, _ := strings.Cut(string(head), "\n")
	method, line, _ := strings.Cut(strings.TrimSuffix(first, "\r"), " ")
	target, version, _ := strings.Cut(line, " ")
	if !isToken(method) || target == "" || !isVersion(version) {
		return request{}, fmt.Errorf("%w: its first line is %.100q", errNotHTTP, first)
	}
	for line := range strings.Lines(rest) {
		line = strings.TrimRight(line, "\r\n")
		name, _, found := strings.Cut(line, ":")
		if line != "" && (!found || !isToken(name)) {
			return request{}, fmt.Errorf("%w: %.100q is no header field", errNotHTTP, line)
		}
	}
	return request{method, target, version}, nil
}

// isVersion says whether s is an HTTP-version (RFC 9112, section 2.3).
func isVersion(s string) bool {
	digit := func(c byte) bool { return c >= '0' && c <= '9' }
	return len(s) == len("HTTP/1.1") && strings.HasPrefix(s, "HTTP/") && digit(s[5]) && s[6] == '.' && digit(s[7])
}

// isToken says whether s is a token (RFC 9110, section 5.6.2).
func isToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		alnum := c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z'
		if !alnum && strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0 {
			return false
		}
	}
	return s != ""
}
