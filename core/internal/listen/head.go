package listen

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"
)

// The bounds of a request, in bytes. Whatever a client sends, no more of it is
// held than a piece, and of its first line so much that every host and port fits.
const (
	maxHeader  = 64 << 10 // its first line and its headers
	headPiece  = 1 << 10  // what is read at a time, which is the size of its reader's buffer
	firstBegin = 1 << 10  // what is kept of the beginning of the first line
	firstEnd   = 16       // and of its end, if it is longer
	quoted     = 100      // what is quoted of the first line
)

var (
	errHeaderTooLarge = &mistake{fmt.Sprintf("the request's headers are larger than %d bytes", maxHeader), "see what the client sends: CONNECT needs no headers"}
	errNotHTTP        = &mistake{"this is not an HTTP request", "see what the client sends: it has to be set to an HTTP proxy"}
)

// wrongFirstByte is a first byte that begins no request.
type wrongFirstByte byte

func (e wrongFirstByte) Error() string { return fmt.Sprintf("a request begins with 0x%02x", byte(e)) }

// readHead reads the lines of a request up to the empty one (RFC 9112, section
// 2.1). It is not net/http's reader, which takes more and holds more: a folded field
// and a space before a colon (RFC 9112, sections 5.1 and 5.2) are fields to it, and of a
// head of 60 KB that is not complete yet it holds 64 KB in one field and 129 KB in many,
// for each of thousands of clients in their handshake; this holds 3 KB.
// It returns the first line, checks that the others are header fields, of which only
// Proxy-Authorization matters here, and leaves what is behind them in r. The error is a
// wrongFirstByte as soon as the first byte is there, io.EOF where the client has left
// before it, and io.ErrUnexpectedEOF where it has closed later.
func readHead(r *bufio.Reader) (requestHead, error) {
	var h head
	for size := 0; size < maxHeader; {
		if _, err := r.Peek(1); err != nil {
			switch {
			case size == 0 && left(err):
				err = io.EOF
			case errors.Is(err, io.EOF):
				err = io.ErrUnexpectedEOF
			}
			return requestHead{}, err
		}
		used, ended, err := h.take(peeked(r, maxHeader-size))
		if err != nil {
			return requestHead{}, err
		}
		discard(r, used)
		size += used
		if ended {
			line, err := h.requestLine()
			return requestHead{line, h.credentials}, err
		}
	}
	return requestHead{}, errHeaderTooLarge
}

// head is what is known of a request's lines so far.
type head struct {
	begun  bool   // empty lines before a request are skipped (RFC 9112, section 2.2)
	inRest bool   // the first line is over
	first  []byte // the first line: its beginning, and where that is full its end
	spaces int    // in it
	line   field
	lines  int   // behind the first
	wrong  error // of the first line that is no header field

	credentials credentials
}

// requestHead is what is kept of a head.
type requestHead struct {
	requestLine
	credentials credentials
}

// field is a header field's line so far.
type field struct {
	size   int
	begin  []byte // its first bytes
	blank  bool   // nothing but carriage returns
	named  bool   // the colon is there
	wrong  bool   // the name is no token
	secret bool   // it is Proxy-Authorization
}

// take takes the next bytes. It returns how many of them were the head's, and
// whether that has ended.
func (h *head) take(b []byte) (used int, ended bool, err error) {
	for i, c := range b {
		switch {
		case !h.begun && (c == '\r' || c == '\n'):
		case !h.begun && (c < 'A' || c > 'Z'):
			return i, false, wrongFirstByte(c)
		case !h.inRest && c == '\n':
			h.inRest, h.line = true, field{blank: true}
		case !h.inRest:
			h.begun = true
			h.takeFirst(c)
		case c != '\n':
			h.takeOther(c)
		case h.line.blank && h.line.size <= 1:
			return i + 1, true, nil
		default:
			h.lines++
			if !h.line.blank && (!h.line.named || h.line.wrong) && h.wrong == nil {
				// It is not quoted: it may be half a Proxy-Authorization.
				h.wrong = fmt.Errorf("%w: line %d of its headers is not a header field", errNotHTTP, h.lines)
			}
			h.line = field{blank: true, begin: h.line.begin[:0]}
		}
	}
	return len(b), false, nil
}

func (h *head) takeFirst(c byte) {
	if c == ' ' {
		h.spaces++
	}
	if len(h.first) == firstBegin+firstEnd {
		copy(h.first[firstBegin:], h.first[firstBegin+1:])
		h.first = h.first[:len(h.first)-1]
	}
	h.first = append(h.first, c)
}

func (h *head) takeOther(c byte) {
	value := h.line.secret
	h.line.take(c)
	switch {
	case value:
		h.credentials.take(c)
	case h.line.secret:
		h.credentials.fields++
	}
}

func (f *field) take(c byte) {
	switch {
	case f.named:
	case c == ':':
		f.named, f.wrong = true, f.wrong || f.size == 0
		f.secret = f.size == len(authorization) && strings.EqualFold(string(f.begin), authorization)
	case !isTokenByte(c):
		f.wrong = true
	}
	f.blank = f.blank && c == '\r'
	if f.size < len(authorization) {
		f.begin = append(f.begin, c)
	}
	f.size++
}

// requestLine is the first line of a request (RFC 9112, section 3). A target that is
// too long for a host and a port is not whole.
type requestLine struct{ method, target, version string }

func (h *head) requestLine() (requestLine, error) {
	line := strings.TrimSuffix(string(h.first), "\r")
	method, rest, _ := strings.Cut(line, " ")
	i := strings.LastIndexByte(rest, ' ')
	if h.spaces != 2 || i < 1 || !isToken(method) || !isVersion(rest[i+1:]) {
		return requestLine{}, fmt.Errorf("%w: its first line is %.*q", errNotHTTP, quoted, line)
	}
	return requestLine{method, rest[:i], rest[i+1:]}, h.wrong
}

// isVersion says whether s is an HTTP-version (RFC 9112, section 2.3).
func isVersion(s string) bool {
	digit := func(c byte) bool { return c >= '0' && c <= '9' }
	return len(s) == len("HTTP/1.1") && strings.HasPrefix(s, "HTTP/") && digit(s[5]) && s[6] == '.' && digit(s[7])
}

// isToken says whether s is a token (RFC 9110, section 5.6.2).
func isToken(s string) bool {
	for i := range len(s) {
		if !isTokenByte(s[i]) {
			return false
		}
	}
	return s != ""
}

func isTokenByte(c byte) bool {
	alnum := c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z'
	return alnum || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}
