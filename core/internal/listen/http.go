package listen

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"

	"github.com/tunneld/tunneld/core/internal/tunnel"
)

// maxHeader bounds a request's line and headers, in bytes.
const maxHeader = 64 << 10

type httpClient struct {
	conn   *net.TCPConn
	r      *bufio.Reader
	target tunnel.Target
}

var errHeaderTooLarge = fmt.Errorf("the request's headers are larger than %d bytes", maxHeader)

// headerLimit is a reader that ends with an error of its own, so that a header
// without an end is told from a client that has gone.
type headerLimit struct {
	r    io.Reader
	left int
}

func (l *headerLimit) Read(b []byte) (int, error) {
	if l.left <= 0 {
		return 0, errHeaderTooLarge
	}
	n, err := l.r.Read(b[:min(len(b), l.left)])
	l.left -= n
	return n, err
}

// httpHandshake reads a CONNECT request (RFC 9110, section 9.3.6). What follows
// its header is the tunnel's, whatever the header says of a body.
func httpHandshake(c *net.TCPConn) (Client, error) {
	r := bufio.NewReader(&headerLimit{r: c, left: maxHeader})
	req, err := http.ReadRequest(r)
	switch {
	case errors.Is(err, errHeaderTooLarge):
		tellHTTP(c, http.StatusRequestHeaderFieldsTooLarge, "", err.Error())
		return nil, err
	case errors.Is(err, os.ErrDeadlineExceeded):
		tellHTTP(c, http.StatusRequestTimeout, "", "the request did not come in time")
		return nil, err
	case isNetError(err):
		_ = c.Close() // the client is gone
		return nil, err
	case err != nil:
		tellHTTP(c, http.StatusBadRequest, "", "this is not an HTTP request: "+err.Error())
		return nil, err
	case req.Method != http.MethodConnect:
		tellHTTP(c, http.StatusMethodNotAllowed, "Allow: CONNECT\r\n", "this proxy takes CONNECT alone, not "+strconv.Quote(req.Method))
		return nil, fmt.Errorf("method %q, and only CONNECT is supported", req.Method)
	}
	target, err := parseTarget(req.RequestURI)
	if err != nil {
		tellHTTP(c, http.StatusBadRequest, "", err.Error())
		return nil, err
	}
	return &httpClient{conn: c, r: r, target: target}, nil
}

func isNetError(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) || errors.Is(err, io.EOF)
}

// parseTarget reads "host:port" (RFC 9112, section 3.2.3).
func parseTarget(s string) (tunnel.Target, error) {
	host, port, err := net.SplitHostPort(s)
	n, portErr := strconv.ParseUint(port, 10, 16)
	if err != nil || portErr != nil || n == 0 || host == "" || len(host) > 255 || strings.ContainsAny(host, "/@ ") {
		return tunnel.Target{}, fmt.Errorf("CONNECT wants host:port, not %.300q", s)
	}
	return tunnel.Target{Host: host, Port: uint16(n)}, nil
}

func (c *httpClient) Target() tunnel.Target { return c.target }

func (c *httpClient) Accept() (net.Conn, []byte, error) {
	if err := accept(c.conn, []byte("HTTP/1.1 200 Connection established\r\n\r\n")); err != nil {
		return nil, nil, err
	}
	return c.conn, buffered(c.r), nil
}

// Refuse answers with the status of the table, the same in Proxy-Status for
// programs (RFC 9209), and in the body for people.
func (c *httpClient) Refuse(err *tunnel.DialError) {
	a := answerTo(err.Reason)
	headers := fmt.Sprintf("Proxy-Status: tunneld; error=%s; details=%s\r\n", a.ProxyError, sfString(err.Message))
	var body strings.Builder
	fmt.Fprintf(&body, "%s: %s\n%s\n", err.Stage.Text(), err.Reason.Text(), err.Message)
	if err.Hint != "" {
		fmt.Fprintf(&body, "%s\n", err.Hint)
	}
	tellHTTP(c.conn, a.Status, headers, strings.TrimSuffix(body.String(), "\n"))
}

// sfString writes a string of a structured field (RFC 8941, section 3.3.3):
// printable ASCII, with quotes and backslashes escaped.
func sfString(s string) string {
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

func tellHTTP(c *net.TCPConn, status int, headers, body string) {
	var b bytes.Buffer
	fmt.Fprintf(&b, "HTTP/1.1 %d %s\r\n%sContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s\n",
		status, http.StatusText(status), headers, len(body)+1, body)
	tell(c, b.Bytes())
}
