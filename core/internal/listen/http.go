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
	Summary:     "HTTP/1, only CONNECT (RFC 9110, section 9.3.6), with at most 64 KiB of headers",
	NamesTarget: true,
	Passwords:   true,
	Speaks:      "HTTP",
	Begins:      func(first byte) bool { return first >= 'A' && first <= 'Z' },
	Astray:      "the client is set to an HTTP proxy: set it to SOCKS5, or to the port of an http or mixed listener",
	Foreign: func(speaks string) []byte {
		switch speaks {
		case "HTTP":
			return httpAnswer(http.StatusBadRequest, requestError, "this is not an HTTP request", false)
		case sniKind.Speaks:
			return httpAnswer(http.StatusBadRequest, "", "this port speaks TLS: write https:// in place of http://", false)
		}
		return httpAnswer(http.StatusBadRequest, "", "this is a "+speaks+" proxy, not one for HTTP", false)
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

const onlyTunnels = "make the client tunnel, as curl does with --proxytunnel, or let it use a socks5 listener"

// readHTTP reads a CONNECT request. What follows its header is the tunnel's,
// whatever the header says of a body. The login comes last: what is wrong with the
// request itself is so with the right password, too. on is the listener's kind.
func readHTTP(r *bufio.Reader, prove prover, on Kind) (Request, *Failure) {
	if beginsHeader(r) {
		return Request{}, unwantedHeader()
	}
	req, err := readHead(r)
	if err != nil {
		return Request{}, badHead(err, on)
	}
	if !strings.HasPrefix(req.version, "HTTP/1.") {
		return Request{}, &Failure{
			Err:    fmt.Errorf("the client speaks %s, and only HTTP/1 is supported", req.version),
			Answer: httpAnswer(http.StatusHTTPVersionNotSupported, requestError, "this proxy speaks HTTP/1.1", false),
		}
	}
	if req.method != http.MethodConnect {
		return Request{}, &Failure{
			Err: &mistake{fmt.Sprintf("method %.20q, and only CONNECT is supported", req.method), onlyTunnels},
			Answer: httpAnswer(http.StatusMethodNotAllowed, "Allow: CONNECT\r\n"+requestError,
				fmt.Sprintf("this proxy accepts only CONNECT, not %.20q\n%s", req.method, onlyTunnels), req.method == http.MethodHead),
		}
	}
	host, port, err := splitTarget(req.target)
	if err != nil {
		return Request{}, &Failure{Err: err, Answer: httpAnswer(http.StatusBadRequest, requestError, err.Error(), false)}
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

// badHead is the answer to a request that has not come as a whole.
func badHead(err error, on Kind) *Failure {
	var first wrongFirstByte
	switch {
	case errors.As(err, &first):
		return wrongProtocol(on, byte(first))
	case errors.Is(err, errNotHTTP):
		return &Failure{Err: err, Answer: httpAnswer(http.StatusBadRequest, requestError, err.Error(), false)}
	case errors.Is(err, errHeaderTooLarge):
		return &Failure{Err: err, Answer: httpAnswer(http.StatusRequestHeaderFieldsTooLarge, requestError, err.Error(), false)}
	case errors.Is(err, os.ErrDeadlineExceeded):
		return &Failure{Err: err, Answer: httpAnswer(http.StatusRequestTimeout, requestError, "the request did not arrive in time", false)}
	case errors.Is(err, io.EOF):
		return &Failure{Err: ErrNothing}
	case broken(err):
		return &Failure{Err: err}
	default:
		return &Failure{Err: err, Answer: httpAnswer(http.StatusBadRequest, requestError, "the request is incomplete", false)}
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
	return httpAnswer(a.Status, headers, body, false)
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

// httpAnswer is a whole response. headers are lines with their CRLF; headless
// leaves the body away that the answer to HEAD must not have.
func httpAnswer(status int, headers, body string, headless bool) []byte {
	b := fmt.Appendf(nil, "HTTP/1.1 %d %s\r\n%sContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\nConnection: close\r\n\r\n",
		status, http.StatusText(status), headers, len(body)+1)
	if headless {
		return b
	}
	return append(append(b, body...), '\n')
}
