package sdktest_test

import (
	"context"
	"io"
	"net"
	"os"
	"runtime"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tunneld/tunneld/plugins/sdk"
	"github.com/tunneld/tunneld/plugins/sdk/sdktest"
	"github.com/tunneld/tunneld/plugins/sdk/sdktest/fixture"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// both runs a test over the direct and the relay fixture.
func both(t *testing.T, f func(t *testing.T, p sdk.Plugin)) {
	for _, p := range []sdk.Plugin{fixture.Direct(), fixture.Relay()} {
		t.Run(p.Name, func(t *testing.T) { f(t, p) })
	}
}

// target is a far end whose connections a test takes one by one.
type target struct {
	t *testing.T
	l *net.TCPListener
}

func newTarget(t *testing.T) *target {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return &target{t: t, l: l.(*net.TCPListener)}
}

func (tg *target) addr() string { return tg.l.Addr().String() }

func (tg *target) accept() *net.TCPConn {
	tg.t.Helper()
	if err := tg.l.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		tg.t.Fatal(err)
	}
	c, err := tg.l.AcceptTCP()
	if err != nil {
		tg.t.Fatal(err)
	}
	deadline(tg.t, c)
	tg.t.Cleanup(func() { _ = c.Close() })
	return c
}

func deadline(t *testing.T, c net.Conn) {
	t.Helper()
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
}

func bounded(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// dial makes a tunnel and returns both of its ends.
func dial(t *testing.T, p sdk.Plugin, values map[string]any) (*sdktest.Conn, *net.TCPConn) {
	t.Helper()
	tg := newTarget(t)
	u := sdktest.Start(t, p).Configure(t, "up", values)
	c, err := u.Dial(bounded(t), tg.addr())
	if err != nil {
		t.Fatal(err)
	}
	deadline(t, c)
	t.Cleanup(func() { _ = c.Close() })
	return c, tg.accept()
}

func write(t *testing.T, w io.Writer, s string) {
	t.Helper()
	if _, err := io.WriteString(w, s); err != nil {
		t.Fatalf("write %q: %v", s, err)
	}
}

func read(t *testing.T, r io.Reader, want string) {
	t.Helper()
	b := make([]byte, len(want))
	if _, err := io.ReadFull(r, b); err != nil || string(b) != want {
		t.Fatalf("read %q, %v; want %q", b, err, want)
	}
}

func readEOF(t *testing.T, r io.Reader) {
	t.Helper()
	if n, err := r.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Fatalf("read %d bytes, %v; want the end of file", n, err)
	}
}

func closeWrite(t *testing.T, c interface{ CloseWrite() error }) {
	t.Helper()
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
}

// descriptors counts the process's open descriptors, 0 where that is unknown.
func descriptors(t *testing.T) int {
	t.Helper()
	if runtime.GOOS != "linux" {
		return 0
	}
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// eventually waits for a condition that other goroutines or the kernel bring
// about and that nobody announces.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	ctx := bounded(t)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("never: %s", what)
		}
	}
}
