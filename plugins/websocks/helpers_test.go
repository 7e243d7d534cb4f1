package websocks

import (
	"bufio"
	"context"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tunneld/tunneld/plugins/sdk"
	"github.com/tunneld/tunneld/plugins/sdk/sdktest"
	"github.com/tunneld/tunneld/plugins/websocks/internal/wire"
	"github.com/tunneld/tunneld/plugins/websocks/websocksemu"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds what a test waits for.
const patience = 20 * time.Second

// within is a context that ends before a broken test would hang.
func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// values are an upstream's, as a user writes them.
type values = map[string]any

func emulate(t *testing.T, o websocksemu.Options) *websocksemu.Server {
	t.Helper()
	s, err := websocksemu.Start(o)
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

// towards is the upstream that connects through s.
func towards(s *websocksemu.Server, more ...values) values {
	v := values{"url": s.URL()}
	if ca := s.CAFile(); ca != "" {
		v["tls"] = values{"ca_file": ca}
	}
	for _, m := range more {
		maps.Copy(v, m)
	}
	return v
}

// withClock is the plugin with another clock.
func withClock(now time.Time) sdk.Plugin {
	p := Plugin()
	p.New = func() sdk.Dialer { return &Config{now: func() time.Time { return now }} }
	return p
}

// dial connects through an upstream of these values.
func dial(t *testing.T, v values, target string) (*sdktest.Conn, error) {
	t.Helper()
	return dialPlugin(t, Plugin(), v, target)
}

func dialPlugin(t *testing.T, p sdk.Plugin, v values, target string) (*sdktest.Conn, error) {
	t.Helper()
	u := sdktest.Start(t, p).Configure(t, "test", v)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := u.Dial(ctx, target)
	if err == nil {
		_ = c.SetDeadline(time.Now().Add(patience))
		t.Cleanup(func() { _ = c.Close() })
	}
	return c, err
}

func mustDial(t *testing.T, v values, target string) *sdktest.Conn {
	t.Helper()
	c, err := dial(t, v, target)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// refusedDial expects a DialError.
func refusedDial(t *testing.T, v values) *sdk.DialError {
	t.Helper()
	_, err := dial(t, v, websocksemu.EchoTarget)
	return dialError(t, err)
}

func dialError(t *testing.T, err error) *sdk.DialError {
	t.Helper()
	var e *sdk.DialError
	if !errors.As(err, &e) {
		t.Fatalf("dial: %v, want a DialError", err)
	}
	if e.Hint == "" {
		t.Errorf("no hint with %q", e.Message)
	}
	return e
}

func send(t *testing.T, c io.Writer, s string) {
	t.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		t.Fatalf("send %q: %v", s, err)
	}
}

func expect(t *testing.T, c io.Reader, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(c, got); err != nil || string(got) != want {
		t.Fatalf("received %q (%v), want %q", got[:n], err, want)
	}
}

func expectEOF(t *testing.T, c io.Reader) {
	t.Helper()
	if rest, err := io.ReadAll(c); err != nil || len(rest) > 0 {
		t.Fatalf("received %d bytes (%v), want the end", len(rest), err)
	}
}

func expectSilence(t *testing.T, c net.Conn) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	n, err := c.Read(make([]byte, 1))
	if ne, ok := err.(net.Error); n != 0 || !ok || !ne.Timeout() {
		t.Errorf("received %d bytes and %v, want silence", n, err)
	}
	_ = c.SetReadDeadline(time.Now().Add(patience))
}

// script serves one connection on loopback and returns its ws:// URL. The test
// ends no sooner than play.
func script(t *testing.T, play func(c net.Conn)) string {
	t.Helper()
	l := listen(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(patience))
		play(c)
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-done
	})
	return "ws://" + l.Addr().String()
}

func listen(t *testing.T) *net.TCPListener {
	t.Helper()
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	_ = l.SetDeadline(time.Now().Add(patience))
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// upgrade answers a client's upgrade and returns what reads on.
func upgrade(t *testing.T, c net.Conn) *bufio.Reader {
	t.Helper()
	r := bufio.NewReader(c)
	q, err := http.ReadRequest(r)
	if err != nil {
		t.Errorf("read request: %v", err)
		return r
	}
	_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\n"+
		"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Protocol: socks5\r\n"+
		"Sec-WebSocket-Accept: "+wire.Accept(q.Header.Get("Sec-WebSocket-Key"))+"\r\n\r\n")
	return r
}

// everything that a client sends behind the upgrade for EchoTarget.
const (
	frame       = "\x82\x7f\x7f\xff\xff\xff\xff\xff\xff\xff"
	echoOpening = frame + "\x05\x01\x00" + "\x05\x01\x00\x03\x0decho.internal\x00\x07"
	connected   = "\x05\x00\x00\x01\x00\x00\x00\x00\x00\x07"
)

// has fails the test unless s contains all the words.
func has(t *testing.T, what, s string, words ...string) {
	t.Helper()
	for _, w := range words {
		if !strings.Contains(s, w) {
			t.Errorf("%s %q has no %q", what, s, w)
		}
	}
}
