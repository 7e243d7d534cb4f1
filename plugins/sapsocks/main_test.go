package sapsocks_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tunneld/tunneld/internal/nettest"
	"github.com/tunneld/tunneld/plugins/sapsocks"
	"github.com/tunneld/tunneld/plugins/sapsocks/sapsocksemu"
	"github.com/tunneld/tunneld/plugins/sdk"
	"github.com/tunneld/tunneld/plugins/sdk/sdktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// values is the body of an upstream as a user writes it.
type values = map[string]any

// patience bounds whatever a test waits for.
const patience = 20 * time.Second

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// emulate runs an emulator whose Cloud Connector without a location id maps
// echo.corp:7 to an echo service, unless o says otherwise.
func emulate(t testing.TB, o sapsocksemu.Options) *sapsocksemu.Server {
	if o.Connectors == nil {
		o.Connectors = map[string]map[string]string{"": {"echo.corp:7": nettest.Serve(t, nettest.Echo)}}
	}
	emu, err := sapsocksemu.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := emu.Close(); err != nil {
			t.Errorf("close emulator: %v", err)
		}
	})
	return emu
}

// configure runs the plugin with one upstream.
func configure(t *testing.T, v values) *sdktest.Upstream {
	t.Helper()
	return sdktest.Start(t, sapsocks.Plugin()).Configure(t, "onprem", v)
}

// bound is the emulator's binding with more values.
func bound(emu *sapsocksemu.Server, more values) values {
	v := values{"vcap_services": emu.VCAPServices()}
	for name, value := range more {
		v[name] = value
	}
	return v
}

// exchange sends text through a tunnel to an echo service, ends its direction
// and wants the text back, and the end of file.
func exchange(t *testing.T, c *sdktest.Conn, text string) {
	t.Helper()
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	written := make(chan error, 1)
	go func() {
		_, err := io.WriteString(c, text)
		written <- errors.Join(err, c.CloseWrite())
	}()
	got, err := io.ReadAll(c)
	if err = errors.Join(err, <-written); err != nil || string(got) != text {
		t.Fatalf("%d bytes came back of %d, %v", len(got), len(text), err)
	}
}

// reach dials and exchanges a little.
func reach(t *testing.T, u *sdktest.Upstream, target string) {
	t.Helper()
	c, err := u.Dial(within(t), target)
	if err != nil {
		t.Fatalf("dial %s: %v", target, err)
	}
	exchange(t, c, "hello")
}

// fails dials and wants the failure that the table has for kind.
func fails(t *testing.T, u *sdktest.Upstream, target string, kind sapsocks.Kind) *sdk.DialError {
	t.Helper()
	c, err := u.Dial(within(t), target)
	if err == nil {
		_ = c.Close()
		t.Fatalf("dial %s: it went well, want %s", target, kind)
	}
	return isKind(t, err, kind)
}

// isKind wants err to be the failure that the table has for kind.
func isKind(t *testing.T, err error, kind sapsocks.Kind) *sdk.DialError {
	t.Helper()
	var e *sdk.DialError
	if !errors.As(err, &e) {
		t.Fatalf("%v is no DialError", err)
	}
	row := find(t, kind)
	if e.Stage != row.Stage || row.Reason != 0 && (e.Reason != row.Reason || e.Retryable != row.Retryable) {
		t.Errorf("%s: stage %s, reason %s, retryable %v; want %s, %s, %v", kind,
			e.Stage, e.Reason, e.Retryable, row.Stage, row.Reason, row.Retryable)
	}
	for i, text := range []string{e.Message, e.Hint} {
		pattern := []string{row.Message, row.Hint}[i]
		if !like(text, pattern) {
			t.Errorf("%s: %q, want it like %q", kind, text, pattern)
		}
	}
	if strings.ContainsAny(e.Message+e.Hint, "{}\n") {
		t.Errorf("%s: a placeholder or line feed is left in %q %q", kind, e.Message, e.Hint)
	}
	return e
}

func find(t *testing.T, kind sapsocks.Kind) sapsocks.Failure {
	t.Helper()
	for _, row := range sapsocks.Failures() {
		if row.Kind == kind {
			return row
		}
	}
	t.Fatalf("no row for %s", kind)
	return sapsocks.Failure{}
}

// like says whether text has all of the pattern's fixed pieces in their order.
func like(text, pattern string) bool {
	for _, piece := range strings.FieldsFunc(pattern, func(r rune) bool { return r == '{' || r == '}' }) {
		switch piece {
		case "target", "proxy", "location", "token_url", "detail":
			continue
		}
		i := strings.Index(text, piece)
		if i < 0 {
			return false
		}
		text = text[i+len(piece):]
	}
	return true
}

// started starts a configuration without the daemon's side, with short
// timeouts unless it has some, and closes it with the test.
func started(t *testing.T, c *sapsocks.Config, report func(sdk.Status)) *sapsocks.Config {
	t.Helper()
	if c.Timeouts == (sdk.Timeouts{}) {
		c.Timeouts = sdk.Timeouts{Connect: patience, Handshake: patience}
	}
	if report == nil {
		report = func(sdk.Status) {}
	}
	env := &sdk.Env{Upstream: "onprem", Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Report: report}
	if err := c.Start(env); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return c
}
