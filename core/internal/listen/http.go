package listen

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/tunneld/tunneld/core/internal/tunnel"
)

var httpKind = Kind{
	Name:        KindHTTP,
	Summary:     "HTTP/1: CONNECT (RFC 9110, section 9.3.6), and requests for `http://` URIs (RFC 9112, section 3.2.2), with at most 64 KiB of headers",
	NamesTarget: true,
	Passwords:   true,
	Plain:       true,
	Speaks:      "HTTP",
	Begins:      func(first byte) bool { return first >= 'A' && first <= 'Z' },
	Astray:      "the client is set to an HTTP proxy: set it to SOCKS5, or to the port of an http or mixed listener",
	Foreign: func(speaks string) []byte {
		switch speaks {
		case "HTTP":
			return httpAnswer(http.StatusBadRequest, requestError, "this is not an HTTP request")
		case sniKind.Speaks:
			return httpAnswer(http.StatusBadRequest, "", "this port speaks TLS: write https:// in place of http://")
		}
		return httpAnswer(http.StatusBadRequest, "", "this is a "+speaks+" proxy, not one for HTTP")
	},
	New: func(Settings) Protocol { return httpProtocol{} },
}

// httpProtocol is CONNECT (RFC 9110, section 9.3.6).
type httpProtocol struct{}

func (httpProtocol) Asks() bool { return true }

func (p httpProtocol) Learn(ctx context.Context, c *Conn) (Request, *Failure) {
	return hear(ctx, p, c, func(s io.ReadWriter) (Request, *Failure) {
		return readHTTP(bufio.NewReaderSize(s, headPiece), c.prover(ctx), httpKind)
	})
}

func (httpProtocol) Refuse(ctx context.Context, c *Conn, err *tunnel.DialError) {
	c.CloseWith(ctx, httpRefusal(err))
}

var httpReplies = replies{
	// It has no body and says nothing of one (RFC 9110, section 9.3.6).
	ready:   []byte("HTTP/1.1 200 Connection established\r\n\r\n"),
	refusal: httpRefusal,
}

// requestError is the Proxy-Status of a request that is wrong in itself (RFC
// 9209, section 2.3.21).
const requestError = "Proxy-Status: tunneld; error=http_request_error\r\n"

// readHTTP reads a CONNECT request. What follows its header is the tunnel's,
// whatever the header says of a body. The login comes last: what is wrong with the
// request itself is so with the right password, too. on is the listener's kind. Of another
// request it reads no more than that it is one.
func readHTTP(r *bufio.Reader, prove prover, on Kind) (Request, *Failure) {
	if method, blank := peekMethod(r); method != "" && method != http.MethodConnect {
		discard(r, blank)
		return Request{Plain: true, Ahead: buffered(r)}, nil
	}
	req, err := readHead(r)
	if err != nil {
		return Request{}, badHead(err, on)
	}
	if !strings.HasPrefix(req.version, "HTTP/1.") {
		return Request{}, &Failure{
			Err:    fmt.Errorf("the client speaks %s, and only HTTP/1 is supported", req.version),
			Answer: httpAnswer(http.StatusHTTPVersionNotSupported, requestError, "this proxy speaks HTTP/1.1"),
		}
	}
	if req.method != http.MethodConnect {
		return Request{}, badRequest(fmt.Sprintf("no method comes within the first %d bytes of the request", r.Size()), "see what the client sends before it")
	}
	host, port, err := splitTarget(req.target)
	if err != nil {
		return Request{}, &Failure{Err: err, Answer: httpAnswer(http.StatusBadRequest, requestError, err.Error())}
	}
	asked := ask(host, port, buffered(r), httpReplies)
	if prove != nil {
		var fail *Failure
		if asked.User, fail = req.credentials.prove(prove); fail != nil {
			return Request{}, fail
		}
	}
	return asked, nil
}

// peekMethod returns the method of a request as soon as it is there, and how many bytes of
// empty lines are before it. It takes nothing. The method is empty where none comes, or not
// within the buffer.
func peekMethod(r *bufio.Reader) (method string, blank int) {
	for n := 1; ; n++ {
		b, err := r.Peek(n)
		if err != nil {
			return "", 0
		}
		switch c := b[n-1]; {
		case blank == n-1 && (c == '\r' || c == '\n'):
			blank = n
		case c == ' ' && httpKind.Begins(b[blank]):
			return string(b[blank : n-1]), blank
		case !isTokenByte(c):
			return "", 0
		}
	}
}

// badHead is the answer to a request that has not come as a whole.
func badHead(err error, on Kind) *Failure {
	var first wrongFirstByte
	switch {
	case errors.As(err, &first):
		return wrongProtocol(on, byte(first))
	case errors.Is(err, errNotHTTP):
		return &Failure{Err: err, Answer: httpAnswer(http.StatusBadRequest, requestError, err.Error())}
	case errors.Is(err, errHeaderTooLarge):
		return &Failure{Err: err, Answer: httpAnswer(http.StatusRequestHeaderFieldsTooLarge, requestError, err.Error())}
	case errors.Is(err, os.ErrDeadlineExceeded):
		return &Failure{Err: err, Answer: httpAnswer(http.StatusRequestTimeout, requestError, "the request did not arrive in time")}
	case errors.Is(err, io.EOF):
		return &Failure{Err: ErrNothing}
	case broken(err):
		return &Failure{Err: err}
	default:
		return &Failure{Err: err, Answer: httpAnswer(http.StatusBadRequest, requestError, "the request is incomplete")}
	}
}

// splitTarget reads "host:port" (RFC 9112, section 3.2.3).
func splitTarget(s string) (string, uint16, error) {
	host, port, err := net.SplitHostPort(s)
	n, portErr := strconv.ParseUint(port, 10, 16)
	if err != nil || portErr != nil || n == 0 || !validHost(host, strings.HasPrefix(s, "[")) {
		return "", 0, &mistake{fmt.Sprintf("CONNECT needs host:port, not %.300q", s), "check the address that the client asks for: a name or an IP address (IPv6 in brackets), and a port from 1 to 65535"}
	}
	return host, uint16(n), nil
}

// validHost says whether a host is a name of which nothing can be taken for a
// part of a URL, a header or a log line, or an IP address.
func validHost(host string, brackets bool) bool {
	if brackets {
		ip, err := netip.ParseAddr(host)
		return err == nil && ip.Is6()
	}
	return host != "" && len(host) <= 255 && !strings.ContainsFunc(host, func(r rune) bool {
		return r <= ' ' || r == 0x7f || strings.ContainsRune(`/\@?#%[]"<>`, r)
	})
}

// httpRefusal is the answer with the status of the table, the same in
// Proxy-Status for programs (RFC 9209), and in the body for people: what
// happened, at which stage, and what to check.
func httpRefusal(err *tunnel.DialError) []byte {
	a, told := answerTo(err.Reason), err.ForClient()
	headers := fmt.Sprintf("Proxy-Status: tunneld; error=%s; details=%s\r\n", a.ProxyError, sfString(told.Message))
	if err.RetryAfter > 0 {
		seconds := int64((err.RetryAfter + time.Second - 1) / time.Second)
		headers += fmt.Sprintf("Retry-After: %d\r\n", seconds)
	}
	body := fmt.Sprintf("stage: %s\nreason: %s\n%s", err.Stage.Text(), err.Reason.Text(), told.Message)
	if told.Hint != "" {
		body += "\n" + told.Hint
	}
	return httpAnswer(a.Status, headers, body)
}

// maxDetails bounds what of a message goes into a header; all of it is in the
// body.
const maxDetails = 512

// sfString writes a string of a structured field (RFC 8941, section 3.3.3):
// printable ASCII, with quotes and backslashes escaped.
func sfString(s string) string {
	if len(s) > maxDetails {
		s = s[:maxDetails]
	}
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r >= 0x20 && r < 0x7f:
			b.WriteRune(r)
		default:
			b.WriteByte('?')
		}
	}
	b.WriteByte('"')
	return b.String()
}

// httpAnswer is a whole response. headers are lines with their CRLF.
func httpAnswer(status int, headers, body string) []byte {
	return fmt.Appendf(nil, "HTTP/1.1 %d %s\r\n%sContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s\n",
		status, http.StatusText(status), headers, len(body)+1, body)
}
