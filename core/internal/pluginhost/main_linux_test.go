package pluginhost

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tunneld/tunneld/core/internal/plugintest"
	"github.com/tunneld/tunneld/core/internal/tunnel"
	"github.com/tunneld/tunneld/internal/nettest"
	"github.com/tunneld/tunneld/plugins/sdk"
	"github.com/tunneld/tunneld/plugins/sdk/sdktest/fixture"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// patience bounds what a test waits for; it is never waited out by one that
// passes.
const patience = 30 * time.Second

func TestMain(m *testing.M) {
	plugintest.Serve(map[string]func() int{
		fixture.DirectName: func() int { return sdk.Serve(fixture.Direct()) },
		fixture.RelayName:  func() int { return sdk.Serve(fixture.Relay()) },
		rawName:            serveRaw,
		"sleeper":          sleep,
		"daemon":           serveDaemon,
		"exposed":          exposedProbe,
		"execute":          executeProbe,
	})
	goleak.VerifyTestMain(m)
}

// forms are the two ways in which a plugin can be there; each test of a
// process's life runs over both.
var forms = []string{"bundled", "external"}

// spec returns a plugin in one of the forms.
func spec(t *testing.T, form, name string, env map[string]string) Spec {
	t.Helper()
	var s Spec
	var err error
	switch form {
	case "bundled":
		s, err = Find(name, nil, t.TempDir(), []string{name})
	case "external":
		dir := t.TempDir()
		if _, err = plugintest.Link(dir, name); err == nil {
			s, err = Find(name, nil, dir, nil)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	if s.Bundled != (form == "bundled") {
		t.Fatalf("plugin %s was found as %+v", form, s)
	}
	s.Env = env
	return s
}

// rawSpec is the raw plugin in a mode.
func rawSpec(mode string) Spec {
	return Spec{Name: rawName, Bundled: true, Env: map[string]string{"RAW_MODE": mode}}
}

// testHost is a host whose log and states a test can wait for.
type testHost struct {
	*Host
	log    *journal
	mu     sync.Mutex
	states []State
	turned chan struct{}
}

// newHost returns a host, which is closed with the test. change may adapt its
// options.
func newHost(t *testing.T, change func(*Options)) *testHost {
	t.Helper()
	h := &testHost{log: newJournal(t), turned: make(chan struct{})}
	o := Options{
		Log:         slog.New(slog.NewJSONHandler(h.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		RunDir:      nettest.SocketDir(t),
		CoreVersion: "1.2.3",
		OnState:     h.onState,
		Backoff:     Backoff{Min: 10 * time.Millisecond, Max: 50 * time.Millisecond},
	}
	if change != nil {
		change(&o)
	}
	var err error
	if h.Host, err = New(o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := h.Close(ctx); err != nil {
			t.Errorf("close the host: %v", err)
		}
	})
	return h
}

func (h *testHost) onState(s State) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.states = append(h.states, s)
	close(h.turned)
	h.turned = make(chan struct{})
}

// await waits for a state that was told and fits.
func (h *testHost) await(t *testing.T, what string, fits func(State) bool) State {
	t.Helper()
	late := time.After(patience)
	for {
		h.mu.Lock()
		turned := h.turned
		for _, s := range h.states {
			if fits(s) {
				h.mu.Unlock()
				return s
			}
		}
		h.mu.Unlock()
		select {
		case <-turned:
		case <-late:
			t.Fatalf("no state with %s; last %+v", what, h.states[len(h.states)-1])
		}
	}
}

func (h *testHost) start(t *testing.T, s Spec) *Plugin {
	t.Helper()
	p, err := h.Start(t.Context(), hasty(s))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// hasty spares a plugin the second that a binary with the race detector sleeps
// at its exit.
func hasty(s Spec) Spec {
	s.Env = maps.Clone(s.Env)
	if s.Env == nil {
		s.Env = make(map[string]string)
	}
	s.Env["GORACE"] = "atexit_sleep_ms=0"
	return s
}

// startFails starts a plugin that does not come up.
func (h *testHost) startFails(t *testing.T, s Spec) *StartError {
	t.Helper()
	p, err := h.Start(t.Context(), hasty(s))
	if err == nil {
		t.Fatalf("the start succeeded: %+v", p.State())
	}
	var e *StartError
	if !errors.As(err, &e) {
		t.Fatalf("error %T %v, not a *StartError", err, err)
	}
	t.Logf("error as shown: %v", err)
	return e
}

// journal keeps a log and lets a test wait for a line.
type journal struct {
	t     *testing.T
	mu    sync.Mutex
	lines []string
	added chan struct{}
}

func newJournal(t *testing.T) *journal { return &journal{t: t, added: make(chan struct{})} }

func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, strings.TrimSpace(string(b)))
	close(j.added)
	j.added = make(chan struct{})
	return len(b), nil
}

// await waits for a line that holds all the parts.
func (j *journal) await(t *testing.T, parts ...string) map[string]any {
	t.Helper()
	late := time.After(patience)
	for {
		j.mu.Lock()
		added := j.added
		for _, line := range j.lines {
			if holds(line, parts) {
				j.mu.Unlock()
				var m map[string]any
				if err := json.Unmarshal([]byte(line), &m); err != nil {
					t.Fatalf("log line %q: %v", line, err)
				}
				return m
			}
		}
		j.mu.Unlock()
		select {
		case <-added:
		case <-late:
			t.Fatalf("no log line with %q in:\n%s", parts, j.String())
		}
	}
}

func holds(line string, parts []string) bool {
	for _, p := range parts {
		if !strings.Contains(line, p) {
			return false
		}
	}
	return true
}

// count returns how many lines hold part.
func (j *journal) count(part string) int {
	j.mu.Lock()
	defer j.mu.Unlock()
	n := 0
	for _, line := range j.lines {
		if strings.Contains(line, part) {
			n++
		}
	}
	return n
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return strings.Join(j.lines, "\n")
}

// upstreams is a configuration of one upstream "u".
func upstreams(values string) []*pluginv1.Upstream {
	return []*pluginv1.Upstream{{Name: "u", ConfigJson: []byte(values), ConfigHash: "hash of " + values}}
}

// configure adds a generation and fails the test on any diagnostic.
func configure(t *testing.T, p *Plugin, generation uint64, values string) {
	t.Helper()
	ds, err := p.Configure(t.Context(), generation, upstreams(values))
	if err != nil || len(ds) > 0 {
		t.Fatalf("configure: %v, %v", ds, err)
	}
}

// dialTo dials through upstream "u".
func dialTo(t *testing.T, p *Plugin, generation uint64, target tunnel.Target) (*tunnel.Conn, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	return dialStream(ctx, p.Dialer(generation, "u"), tunnel.Dial{
		Target: target, Source: "192.0.2.1:99", Listener: "tcp.l", Route: "r", Connection: "c1",
		Socket: tunnel.SocketOptions{KeepaliveIdle: 77 * time.Second},
	})
}

// dialStream is a dial whose connection the test reads and writes itself.
func dialStream(ctx context.Context, u tunnel.Dialer, d tunnel.Dial) (*tunnel.Conn, error) {
	c, err := u.Dial(ctx, d)
	if err != nil {
		return nil, err
	}
	return c, c.UseStream()
}

// echoServer answers each connection with what it reads, and ends it after.
func echoServer(t *testing.T) tunnel.Target { return server(t, nettest.Echo) }

// server serves connections on loopback until the test ends.
func server(t *testing.T, handle func(*net.TCPConn)) tunnel.Target {
	t.Helper()
	at := netip.MustParseAddrPort(nettest.Serve(t, handle))
	return tunnel.Target{Host: at.Addr().String(), Port: at.Port()}
}

// exchange sends text through a fresh tunnel to an echo server and ends it
// cleanly.
func exchange(t *testing.T, c *tunnel.Conn, text string) {
	t.Helper()
	if err := exchanged(c, text); err != nil {
		t.Fatal(err)
	}
}

func exchanged(c *tunnel.Conn, text string) error {
	_ = c.Stream.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(c.Stream, text); err != nil {
		return err
	}
	if c.Relay != nil {
		if err := c.Relay.AnnounceEOF(); err != nil {
			return err
		}
	}
	if err := c.Stream.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		return err
	}
	got, err := io.ReadAll(c.Stream)
	if err != nil {
		return err
	}
	if got = bytes.Join([][]byte{c.ReadAhead, got}, nil); string(got) != text {
		return fmt.Errorf("got %q, want %q", got, text)
	}
	if c.Relay != nil {
		if err := c.Relay.ConfirmEOF(); err != nil {
			return err
		}
		if err := c.Relay.ConfirmEnd(context.Background()); err != nil {
			return err
		}
	}
	err = c.Stream.Close()
	if c.Relay != nil {
		c.Relay.Ended()
	}
	return err
}
