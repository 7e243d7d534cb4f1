package websocksemu

import (
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tunneld/tunneld/plugins/websocks/internal/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	key = "dGhlIHNhbXBsZSBub25jZQ==" // of RFC 6455, section 1.3

	frame    = "\x82\x7f\x7f\xff\xff\xff\xff\xff\xff\xff"
	greeting = "\x05\x01\x00"
	// connectEcho asks for EchoTarget.
	connectEcho = "\x05\x01\x00\x03\x0decho.internal\x00\x07"
	connected   = "\x05\x00\x00\x01\x00\x00\x00\x00\x00\x07"
)

func start(t *testing.T, o Options) *Server {
	t.Helper()
	s, err := Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

// client is a peer that sends and expects exact bytes.
type client struct {
	net.Conn
	t *testing.T
}

func dial(t *testing.T, s *Server) client {
	t.Helper()
	c, err := net.Dial("tcp", s.Address())
	if err != nil {
		t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	t.Cleanup(func() { _ = c.Close() })
	return client{c, t}
}

func (c client) send(s string) {
	c.t.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		c.t.Fatalf("send %q: %v", s, err)
	}
}

func (c client) expect(want string) {
	c.t.Helper()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(c, got); err != nil || string(got) != want {
		c.t.Fatalf("received %q (%v), want %q", got[:n], err, want)
	}
}

// head reads an answer's head.
func (c client) head() string {
	c.t.Helper()
	var head bytes.Buffer
	for !strings.HasSuffix(head.String(), "\r\n\r\n") {
		if _, err := io.CopyN(&head, c, 1); err != nil {
			c.t.Fatalf("received %q: %v", head.String(), err)
		}
	}
	return head.String()
}

func (c client) expectEOF() {
	c.t.Helper()
	if rest, err := io.ReadAll(c); err != nil || len(rest) > 0 {
		c.t.Fatalf("received %q (%v), want the end", rest, err)
	}
}

// expectSilence checks that nothing comes and that the connection is open.
func (c client) expectSilence() {
	c.t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	n, err := c.Read(make([]byte, 1))
	if ne, ok := err.(net.Error); n != 0 || !ok || !ne.Timeout() {
		c.t.Fatalf("received %d bytes and %v, want silence", n, err)
	}
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
}

// upgraded is a client after the 101.
func upgraded(t *testing.T, s *Server) client {
	t.Helper()
	c := dial(t, s)
	c.send(upgradeRequest())
	if head := c.head(); !strings.HasPrefix(head, "HTTP/1.1 101 ") {
		t.Fatalf("received %q, want a 101", head)
	}
	return c
}

// upgradeRequest is a good request, with further or other header lines: one that
// names a header of it takes its place, and one without a value its leave.
func upgradeRequest(lines ...string) string {
	headers := []string{
		"Upgrade: websocket",
		"Connection: Upgrade",
		"Host: gateway",
		"Sec-WebSocket-Key: " + key,
		"Sec-WebSocket-Version: 13",
		"Sec-WebSocket-Protocol: socks5",
	}
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ":")
		kept := headers[:0:0]
		for _, h := range headers {
			if !strings.HasPrefix(h, name+":") {
				kept = append(kept, h)
			}
		}
		if headers = kept; value != "" {
			headers = append(headers, line)
		}
	}
	return "GET / HTTP/1.1\r\n" + strings.Join(headers, "\r\n") + "\r\n\r\n"
}

func authorization(user, password string, at time.Time) string {
	return "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+wire.SaltPassword(password, at)))
}

// dialTLS does a TLS handshake within the time.
func dialTLS(t *testing.T, s *Server, c *tls.Config, within time.Duration) (*tls.Conn, error) {
	t.Helper()
	raw := dial(t, s)
	c.InsecureSkipVerify = true
	conn := tls.Client(raw.Conn, c)
	_ = raw.SetDeadline(time.Now().Add(within))
	err := conn.Handshake()
	_ = raw.SetDeadline(time.Now().Add(10 * time.Second))
	return conn, err
}
