package soht

import (
	"context"
	"errors"
	"io"
	"maps"
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tunneld/tunneld/internal/nettest"
	"github.com/tunneld/tunneld/plugins/sdk"
	"github.com/tunneld/tunneld/plugins/sdk/sdktest"
	"github.com/tunneld/tunneld/plugins/soht/sohtemu"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds what a test waits for.
const patience = 30 * time.Second

// values are an upstream's, as a user writes them.
type values = map[string]any

// modes runs a test in both.
func modes(t *testing.T, f func(t *testing.T, mode string)) {
	for _, mode := range []string{modeStateful, modeStateless} {
		t.Run(mode, func(t *testing.T) { f(t, mode) })
	}
}

func emulate(t testing.TB, o sohtemu.Options) *sohtemu.Server {
	t.Helper()
	s, err := sohtemu.Start(o)
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

// sender is a target that sends b, byte for byte as given, and ends.
func sender(t testing.TB, b []byte) string {
	return nettest.Serve(t, func(c *net.TCPConn) {
		_, _ = c.Write(b)
		_ = c.CloseWrite()
		_, _ = io.Copy(io.Discard, c)
	})
}

// scripted is a target whose connections the test drives.
func scripted(t testing.TB) (string, <-chan *net.TCPConn) {
	conns := make(chan *net.TCPConn, 16)
	done := make(chan struct{})
	addr := nettest.Serve(t, func(c *net.TCPConn) {
		conns <- c
		<-done
	})
	t.Cleanup(func() { close(done) })
	return addr, conns
}

func receive[T any](t testing.TB, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatal("nothing came")
		panic("unreachable")
	}
}

// towards is the upstream that connects through s.
func towards(s *sohtemu.Server, mode string, more ...values) values {
	v := values{"url": s.URL(), "mode": mode}
	for _, m := range more {
		maps.Copy(v, m)
	}
	return v
}

func upstream(t testing.TB, v values) *sdktest.Upstream {
	t.Helper()
	return sdktest.Start(t, Plugin()).Configure(t, "test", v)
}

// dial connects through an upstream of these values, as the daemon would.
func dial(t testing.TB, v values, target string) (*sdktest.Conn, error) {
	t.Helper()
	u := upstream(t, v)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := u.Dial(ctx, target)
	if err == nil {
		_ = c.SetDeadline(time.Now().Add(patience))
		t.Cleanup(func() { _ = c.Close() })
	}
	return c, err
}

func mustDial(t testing.TB, v values, target string) *sdktest.Conn {
	t.Helper()
	c, err := dial(t, v, target)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func dialError(t testing.TB, err error) *sdk.DialError {
	t.Helper()
	var e *sdk.DialError
	if !errors.As(err, &e) {
		t.Fatalf("dial: %v, want a DialError", err)
	}
	return e
}

// config is an upstream's struct with the schema's defaults.
func config(s *sohtemu.Server, mode string) *Config {
	return &Config{
		URL: s.URL(), Mode: mode, WriteSize: 32 * sdk.KiB,
		Timeouts: sdk.Timeouts{Connect: 10 * time.Second, Handshake: 10 * time.Second},
	}
}

// bare connects without the daemon's side, so that a stream's own errors show.
// The stream is aborted at the test's end unless it was closed.
func bare(t testing.TB, c *Config, target string) sdk.Stream {
	t.Helper()
	host, port, err := net.SplitHostPort(target)
	if err != nil {
		t.Fatal(err)
	}
	n, err := net.LookupPort("tcp", port)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	s, _, err := c.dial(ctx, &sdk.Request{Target: sdk.Target{Host: host, Port: uint16(n)}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Abort("the test ends")
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// read reads exactly n bytes.
func read(t testing.TB, r io.Reader, n int) []byte {
	t.Helper()
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		t.Fatalf("read: %v", err)
	}
	return b
}

func write(t testing.TB, w io.Writer, b []byte) {
	t.Helper()
	if _, err := w.Write(b); err != nil {
		t.Fatalf("write: %v", err)
	}
}

// readAll reads to the end of file.
func readAll(t testing.TB, r io.Reader) []byte {
	t.Helper()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatalf("read: %v, after %d bytes", err, len(b))
	}
	return b
}

// eventually waits until the server's counts are as wanted.
func eventually(t testing.TB, s *sohtemu.Server, what string, want func(sohtemu.Stats) bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !want(s.Stats()) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: the counts are %+v", what, s.Stats())
		}
		time.Sleep(time.Millisecond)
	}
}
