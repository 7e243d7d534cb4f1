package sdktest_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tunneld/tunneld/internal/nettest"
	"github.com/tunneld/tunneld/plugins/sdk"
	"github.com/tunneld/tunneld/plugins/sdk/sdktest"
	"github.com/tunneld/tunneld/plugins/sdk/sdktest/fixture"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

func TestDialErrors(t *testing.T) {
	refused := nettest.FreeAddress(t)
	for _, tc := range []struct {
		name   string
		values map[string]any
		target string
		want   sdk.DialError
	}{
		{
			name: "typed by the plugin",
			values: map[string]any{"fail": map[string]any{
				"stage": "request", "reason": "not_found", "retryable": true,
				"message": "no such mapping", "hint": "add it", "retry_after": "90s",
			}},
			want: sdk.DialError{Stage: sdk.StageRequest, Reason: sdk.ReasonNotFound, Retryable: true,
				Message: "no such mapping", Hint: "add it", RetryAfter: 90 * time.Second},
		},
		{
			name:   "stage left open",
			values: map[string]any{"fail": map[string]any{"stage": "", "reason": "denied"}},
			want:   sdk.DialError{Stage: sdk.StageConnect, Reason: sdk.ReasonDenied, Message: "as told"},
		},
		{
			name:   "refused",
			target: refused,
			want: sdk.DialError{Stage: sdk.StageConnect, Reason: sdk.ReasonRefused, Retryable: true,
				Message: "dial tcp " + refused + ": connect: connection refused",
				Hint:    "nothing listens there: check host and port, and that the service runs"},
		},
		{
			name:   "text that is no UTF-8, and endless",
			values: map[string]any{"fail": map[string]any{"reason": "protocol", "message": strings.Repeat("é", 5000)}},
			want: sdk.DialError{Stage: sdk.StageConnect, Reason: sdk.ReasonProtocol,
				Message: strings.Repeat("é", 2048) + "…"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			u := sdktest.Start(t, fixture.Direct()).Configure(t, "up", tc.values)
			target := tc.target
			if target == "" {
				target = "orders-db:5432"
			}
			_, err := u.Dial(bounded(t), target)
			var got *sdk.DialError
			if !errors.As(err, &got) {
				t.Fatalf("error is %v, not a DialError", err)
			}
			if *got != tc.want {
				t.Errorf("got  %+v\nwant %+v", *got, tc.want)
			}
		})
	}
}

// A mistake in the plugin's code is an error of the call and not a DialError,
// which would speak of the far end: the daemon tries the next upstream.
func TestFaultsOfThePluginAreNotTheFarEnds(t *testing.T) {
	for _, tc := range []struct {
		name   string
		plugin sdk.Plugin
		values map[string]any
		want   string
	}{
		{"panic", fixture.Direct(), map[string]any{"panic_in": "dial"}, "the plugin panicked"},
		{"nothing", fixture.Relay(), map[string]any{"nothing": true}, "neither a tunnel nor an error"},
		{"no kernel socket", sdk.Plugin{Name: "piped", Version: "1", New: func() sdk.Dialer { return new(piped) }}, nil, "not a kernel socket"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			u := sdktest.Start(t, tc.plugin).Configure(t, "up", tc.values)
			_, err := u.Dial(bounded(t), "orders-db:5432")
			var d *sdk.DialError
			if errors.As(err, &d) || status.Code(err) != codes.Internal || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error is %v, want one of the call with %q", err, tc.want)
			}
		})
	}
}

// piped hands over what is not a socket of the kernel.
type piped struct{}

func (*piped) Dial(context.Context, *sdk.Request) (*sdk.Tunnel, error) {
	near, far := net.Pipe()
	_ = far.Close()
	return sdk.Direct(near, nil), nil
}

// The daemon's time for a dial is over before the plugin's own: that is told in
// time, and names the listener's setting.
func TestDialOvertime(t *testing.T) {
	t.Parallel()
	tg := newTarget(t)
	go acceptAndHold(t, tg)
	u := sdktest.Start(t, fixture.Direct()).Configure(t, "up", map[string]any{"hang_in": "handshake"})
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	_, err := u.Dial(ctx, tg.addr())
	var got *sdk.DialError
	if !errors.As(err, &got) || got.Stage != sdk.StageHandshake || got.Reason != sdk.ReasonTimeout || !got.Retryable {
		t.Fatalf("error is %v", err)
	}
	if !strings.Contains(got.Message, "the listener's timeouts.dial") || !strings.Contains(got.Hint, "raise timeouts.dial of the listener") {
		t.Errorf("%q, hint %q", got.Message, got.Hint)
	}
}

// A dial that is cancelled, wherever it stands, leaves no descriptor and no
// goroutine behind.
func TestCancelLeavesNothing(t *testing.T) {
	both(t, func(t *testing.T, p sdk.Plugin) {
		tg := newTarget(t)
		go acceptAndHold(t, tg)
		s := sdktest.Start(t, p)
		hangs := map[string]*sdktest.Upstream{}
		for _, stage := range []string{"connect", "handshake", ""} {
			hangs[stage] = s.Configure(t, "hang-"+stage, map[string]any{"hang_in": stage})
		}
		warmUp(t, hangs[""], tg.addr())
		goroutines, open := runtime.NumGoroutine(), descriptors(t)
		for stage, u := range hangs {
			for i := range 50 {
				ctx, cancel := context.WithCancel(t.Context())
				// From "at once" to "after the answer", in steps shorter than a dial.
				timer := time.AfterFunc(time.Duration(i)*50*time.Microsecond, cancel)
				c, err := u.Dial(ctx, tg.addr())
				if err == nil {
					_ = c.Abort("done")
				} else if stage != "" && status.Code(err) != codes.Canceled && !errors.Is(err, context.Canceled) {
					t.Errorf("cancelled in %q: %v", stage, err)
				}
				timer.Stop()
				cancel()
			}
		}
		eventually(t, "goroutines and descriptors are back", func() bool {
			return runtime.NumGoroutine() <= goroutines && descriptors(t) <= open
		})
	})
}

// acceptAndHold takes connections and closes each when its client has.
func acceptAndHold(t *testing.T, tg *target) {
	for {
		c, err := tg.l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			_, _ = io.Copy(io.Discard, c)
		}()
	}
}

func warmUp(t *testing.T, u *sdktest.Upstream, target string) {
	t.Helper()
	c, err := u.Dial(bounded(t), target)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Abort("done"); err != nil {
		t.Fatal(err)
	}
}

func TestManyDials(t *testing.T) {
	both(t, func(t *testing.T, p sdk.Plugin) {
		tg := newTarget(t)
		go acceptAndHold(t, tg)
		u := sdktest.Start(t, p).Configure(t, "up", nil)
		warmUp(t, u, tg.addr())
		goroutines, open := runtime.NumGoroutine(), descriptors(t)
		var all sync.WaitGroup
		for range 64 {
			all.Go(func() {
				c, err := u.Dial(bounded(t), tg.addr())
				if err != nil {
					t.Error(err)
					return
				}
				defer c.Close()
				if err := c.CloseWrite(); err != nil {
					t.Error(err)
				}
				if _, err := io.Copy(io.Discard, c); err != nil {
					t.Error(err)
				}
				if err := c.AwaitEnd(bounded(t)); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		eventually(t, "goroutines and descriptors are back", func() bool {
			return runtime.NumGoroutine() <= goroutines && descriptors(t) <= open
		})
	})
}

func TestCallsThatAreWrong(t *testing.T) {
	s := sdktest.Start(t, fixture.Direct())
	u := s.Configure(t, "up", nil)
	good := func() *pluginv1.DialRequest {
		return &pluginv1.DialRequest{
			Generation:    1,
			Upstream:      "up",
			Target:        &pluginv1.Target{Host: "127.0.0.1", Port: 1},
			Token:         1 << 40,
			AcceptedPaths: []pluginv1.DataPath{pluginv1.DataPath_DATA_PATH_DIRECT},
		}
	}
	for name, tc := range map[string]struct {
		change func(*pluginv1.DialRequest)
		want   codes.Code
	}{
		"generation": {func(r *pluginv1.DialRequest) { r.Generation = 99 }, codes.NotFound},
		"upstream":   {func(r *pluginv1.DialRequest) { r.Upstream = "other" }, codes.NotFound},
		"token":      {func(r *pluginv1.DialRequest) { r.Token = 0 }, codes.InvalidArgument},
		"target":     {func(r *pluginv1.DialRequest) { r.Target = nil }, codes.InvalidArgument},
		"port":       {func(r *pluginv1.DialRequest) { r.Target.Port = 65536 }, codes.InvalidArgument},
	} {
		req := good()
		tc.change(req)
		_, err := s.Tunnels().Dial(bounded(t), req)
		if status.Code(err) != tc.want {
			t.Errorf("%s: %v, want %s", name, err, tc.want)
		}
	}
	tg := newTarget(t)
	_, err := u.DialWith(bounded(t), tg.addr(), sdktest.DialOptions{Accept: []sdktest.Path{"stream"}})
	if status.Code(err) != codes.FailedPrecondition {
		t.Errorf("paths: %v", err)
	}
	readEOF(t, tg.accept())
	stream, err := s.Tunnels().Tunnel(bounded(t))
	if err == nil {
		_, err = stream.Recv()
	}
	if status.Code(err) != codes.Unimplemented {
		t.Errorf("the stream path: %v", err)
	}
}

func TestReleasedGenerationIsGone(t *testing.T) {
	tg := newTarget(t)
	s := sdktest.Start(t, fixture.Relay())
	u := s.Configure(t, "up", nil)
	c, err := u.Dial(bounded(t), tg.addr())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	deadline(t, c)
	far := tg.accept()
	u.Release(t)
	u.Release(t)
	if _, err := u.Dial(bounded(t), tg.addr()); status.Code(err) != codes.NotFound {
		t.Errorf("a dial in a released generation: %v", err)
	}
	write(t, c, "lives on")
	read(t, far, "lives on")
}

func TestDrain(t *testing.T) {
	tg := newTarget(t)
	s := sdktest.Start(t, fixture.Relay())
	u := s.Configure(t, "up", nil)
	c, err := u.Dial(bounded(t), tg.addr())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	deadline(t, c)
	far := tg.accept()
	drained := make(chan error, 1)
	go func() {
		left, err := s.Drain(bounded(t))
		if left != 0 {
			t.Errorf("%d tunnels were left", left)
		}
		drained <- err
	}()
	eventually(t, "dials are refused", func() bool {
		late, err := u.Dial(bounded(t), tg.addr())
		if err == nil {
			_ = late.Close()
		}
		return status.Code(err) == codes.Unavailable
	})
	write(t, c, "still here")
	read(t, far, "still here")
	select {
	case err := <-drained:
		t.Errorf("drain returned with a tunnel open: %v", err)
	default:
	}
	closeWrite(t, c)
	_ = far.Close()
	readEOF(t, c)
	if err := <-drained; err != nil {
		t.Error(err)
	}
}

func TestNoSecretInTheLog(t *testing.T) {
	const secret = "correct horse battery staple"
	var log syncBuffer
	s := sdktest.StartWithLog(t, fixture.Direct(), slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	u := s.Configure(t, "up", map[string]any{"secret": secret, "panic_in": "dial"})
	_, err := u.Dial(bounded(t), "t:1")
	if err == nil || strings.Contains(err.Error(), secret) {
		t.Errorf("error is %v", err)
	}
	ds := s.TryConfigure(t, "up2", map[string]any{"secret": map[string]any{secret: secret}})
	if len(ds) != 1 || strings.Contains(ds[0].Summary+ds[0].Detail+strings.Join(ds[0].Path, ""), secret) {
		t.Errorf("diagnostics are %v", ds)
	}
	s.Stop(t)
	if !strings.Contains(log.String(), "the plugin panicked") || strings.Contains(log.String(), secret) {
		t.Errorf("log is %s", log.String())
	}
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(b)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
