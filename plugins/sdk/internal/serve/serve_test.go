package serve

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tunneld/tunneld/internal/pluginwire"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fake is an instance whose dials do what the test says.
type fake struct {
	dial func(ctx context.Context) *Tunnel
}

func (f *fake) Decode(*pluginv1.Upstream) []*pluginv1.Diagnostic { return nil }
func (f *fake) Validate() []*pluginv1.Diagnostic                 { return nil }
func (f *fake) Defaults() *pluginv1.CommonDefaults               { return nil }
func (f *fake) Start(Env) error                                  { return nil }
func (f *fake) Close() error                                     { return nil }

func (f *fake) Dial(ctx context.Context, _ *pluginv1.DialRequest) (Dialed, error) {
	if t := f.dial(ctx); t != nil {
		return Dialed{Tunnel: t}, nil
	}
	return Dialed{Failure: &pluginv1.DialError{Reason: pluginv1.Reason_REASON_CANCELED}}, nil
}

// fakeStream is one end of a pipe that notes how it is ended.
type fakeStream struct {
	net.Conn
	mu    sync.Mutex
	calls []string
	ended chan struct{} // closed by Close and Abort
}

func newFakeStream() (s *fakeStream, far net.Conn) {
	near, far := net.Pipe()
	return &fakeStream{Conn: near, ended: make(chan struct{})}, far
}

func (s *fakeStream) note(call string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, call)
}

func (s *fakeStream) CloseWrite() error { s.note("close write"); return nil }

func (s *fakeStream) Close() error {
	s.note("close")
	defer close(s.ended)
	return s.Conn.Close()
}

func (s *fakeStream) Abort(reason string) {
	s.note("abort: " + reason)
	defer close(s.ended)
	_ = s.Conn.Close()
}

func (s *fakeStream) tunnel() *Tunnel { return &Tunnel{Relay: func() Stream { return s }} }

// wait returns the calls once the stream has ended.
func (s *fakeStream) wait(t *testing.T) string {
	t.Helper()
	select {
	case <-s.ended:
	case <-time.After(20 * time.Second):
		t.Fatal("the stream was not ended")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.calls, ", ")
}

// start runs a server with one upstream, and returns the daemon's end of the
// channel.
func start(t *testing.T, o Options, dial func(ctx context.Context) *Tunnel) (*Server, *pluginwire.Channel) {
	t.Helper()
	core, f, err := pluginwire.Pair()
	if err != nil {
		t.Fatal(err)
	}
	if o.Channel, err = pluginwire.Open(f); err != nil {
		t.Fatal(err)
	}
	o.Log = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	s := New(Plugin{New: func() Instance { return &fake{dial: dial} }}, o)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := s.Stop(ctx); err != nil {
			t.Error(err)
		}
		_ = core.Close()
	})
	if _, err := s.Configure(t.Context(), &pluginv1.ConfigureRequest{
		Generation: 1,
		Upstreams:  []*pluginv1.Upstream{{Name: "up", ConfigHash: "h"}},
	}); err != nil {
		t.Fatal(err)
	}
	return s, core
}

func request(token uint64) *pluginv1.DialRequest {
	return &pluginv1.DialRequest{
		Generation:    1,
		Upstream:      "up",
		Target:        &pluginv1.Target{Host: "t"},
		Token:         token,
		AcceptedPaths: []pluginv1.DataPath{pluginv1.DataPath_DATA_PATH_RELAY},
	}
}

// relayed dials a relay tunnel and returns the daemon's end of it.
func relayed(t *testing.T, s *Server, core *pluginwire.Channel) net.Conn {
	t.Helper()
	if _, err := s.Dial(t.Context(), request(7)); err != nil {
		t.Fatal(err)
	}
	return arrived(t, core)
}

// arrived is the daemon's end of a relay that was handed over.
func arrived(t *testing.T, core *pluginwire.Channel) net.Conn {
	t.Helper()
	got, err := core.Receive()
	if err != nil || got.Kind != pluginwire.Handoff {
		t.Fatalf("received %+v, %v", got, err)
	}
	f := got.Descriptor.File()
	conn, err := net.FileConn(f)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func receiveEnd(t *testing.T, core *pluginwire.Channel, want uint8, text string) {
	t.Helper()
	got, err := core.Receive()
	if err != nil || got.Kind != pluginwire.End || got.Status != want || !strings.Contains(got.Text, text) {
		t.Errorf("received %+v, %v; want an END with status %d and %q", got.Record, err, want, text)
	}
}

// The answer is due before the call's deadline, or nobody hears it.
func TestDialEndsBeforeTheDeadline(t *testing.T) {
	for timeout, margin := range map[time.Duration]time.Duration{
		time.Second: 100 * time.Millisecond,
		time.Minute: 500 * time.Millisecond,
	} {
		var got time.Time
		s, _ := start(t, Options{}, func(ctx context.Context) *Tunnel {
			got, _ = ctx.Deadline()
			return nil
		})
		ctx, cancel := context.WithTimeout(t.Context(), timeout)
		defer cancel()
		if _, err := s.Dial(ctx, request(1)); err != nil {
			t.Fatal(err)
		}
		deadline, _ := ctx.Deadline()
		// What passes between the two clocks makes the margin smaller.
		if d := deadline.Sub(got); d <= 0 || d > margin {
			t.Errorf("a dial of %v ends %v before its call, want %v", timeout, d, margin)
		}
	}
}

func TestDrainTellsWhatIsLeft(t *testing.T) {
	stream, far := newFakeStream()
	defer far.Close()
	s, core := start(t, Options{}, func(context.Context) *Tunnel { return stream.tunnel() })
	relayed(t, s, core)
	ctx, cancel := context.WithDeadline(t.Context(), time.Now())
	defer cancel()
	if resp, err := s.Drain(ctx, nil); err != nil || resp.GetRemaining() != 1 {
		t.Errorf("drain: %v, %v", resp, err)
	}
	if _, err := s.Dial(t.Context(), request(8)); status.Code(err) != codes.Unavailable {
		t.Errorf("a dial while draining: %v", err)
	}
}

func TestDialsInFlightAreBounded(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	s, _ := start(t, Options{MaxDials: 2}, func(context.Context) *Tunnel {
		entered <- struct{}{}
		<-release
		return nil
	})
	var all sync.WaitGroup
	for token := range uint64(2) {
		all.Go(func() { _, _ = s.Dial(context.Background(), request(token+1)) })
		<-entered
	}
	if _, err := s.Dial(t.Context(), request(2)); status.Code(err) != codes.InvalidArgument {
		t.Errorf("a token twice: %v", err)
	}
	if _, err := s.Dial(t.Context(), request(3)); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("one dial more than the bound: %v", err)
	}
	close(release)
	all.Wait()
	go func() { <-entered }()
	if _, err := s.Dial(t.Context(), request(4)); err != nil {
		t.Errorf("a dial after the others: %v", err)
	}
}

// A plugin that ignores its context makes a tunnel for a call that is over.
func TestTunnelForAnEndedCall(t *testing.T) {
	stream, far := newFakeStream()
	defer far.Close()
	ctx, cancel := context.WithCancel(t.Context())
	s, _ := start(t, Options{}, func(context.Context) *Tunnel {
		cancel()
		return stream.tunnel()
	})
	if _, err := s.Dial(ctx, request(1)); status.Code(err) != codes.Canceled {
		t.Errorf("the dial: %v", err)
	}
	if calls := stream.wait(t); calls != "abort: the dial was cancelled" {
		t.Errorf("calls are %s", calls)
	}
}

// What cannot be handed over is taken down.
func TestHandoverFails(t *testing.T) {
	stream, far := newFakeStream()
	defer far.Close()
	s, core := start(t, Options{}, nil)
	_ = core.Close()
	<-s.Gone()
	_, err := s.handOver(request(1), stream.tunnel())
	if status.Code(err) != codes.Unavailable {
		t.Errorf("the handover: %v", err)
	}
	if calls := stream.wait(t); !strings.HasPrefix(calls, "abort: ") || strings.Contains(calls, ",") {
		t.Errorf("calls are %s", calls)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.relays) != 0 {
		t.Error("a relay is left")
	}
}

// An end of file that nobody announces is a crash, or a daemon that forgot.
func TestEndOfFileWithoutAnnouncement(t *testing.T) {
	stream, far := newFakeStream()
	defer far.Close()
	s, core := start(t, Options{AnnounceTimeout: 10 * time.Millisecond}, func(context.Context) *Tunnel { return stream.tunnel() })
	conn := relayed(t, s, core)
	if err := conn.(*net.UnixConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	receiveEnd(t, core, pluginwire.StatusError, "without announcing it")
	if calls := stream.wait(t); !strings.HasPrefix(calls, "abort: ") || strings.Contains(calls, ",") {
		t.Errorf("calls are %s", calls)
	}
}

func TestCleanEnd(t *testing.T) {
	stream, far := newFakeStream()
	s, core := start(t, Options{}, func(context.Context) *Tunnel { return stream.tunnel() })
	conn := relayed(t, s, core)
	if err := core.Send(pluginwire.Record{Kind: pluginwire.EOF, Token: 7}, nil); err != nil {
		t.Fatal(err)
	}
	if err := conn.(*net.UnixConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	_ = far.Close()
	if got, err := core.Receive(); err != nil || got.Kind != pluginwire.EOF {
		t.Errorf("received %+v, %v", got, err)
	}
	receiveEnd(t, core, pluginwire.StatusClean, "")
	if n, err := conn.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("read %d, %v", n, err)
	}
	if calls := stream.wait(t); calls != "close write, close" {
		t.Errorf("calls are %s", calls)
	}
}

// An abort is heard while the stream's write blocks, and no END follows it.
func TestAbortWhileWriting(t *testing.T) {
	stream, far := newFakeStream()
	defer far.Close()
	s, core := start(t, Options{}, func(context.Context) *Tunnel { return stream.tunnel() })
	conn := relayed(t, s, core)
	if _, err := conn.Write([]byte("nobody reads this")); err != nil {
		t.Fatal(err)
	}
	if err := core.Send(pluginwire.Record{Kind: pluginwire.Abort, Token: 7, Text: "idle"}, nil); err != nil {
		t.Fatal(err)
	}
	if calls := stream.wait(t); calls != "abort: idle" {
		t.Errorf("calls are %s", calls)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := s.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	if got, err := core.Receive(); err != io.EOF {
		t.Errorf("after the abort came %+v, %v", got.Record, err)
	}
}

// Stop does not wait for ever for a plugin that ignores its context.
func TestStopIsBounded(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	s, _ := start(t, Options{}, func(context.Context) *Tunnel {
		close(entered)
		<-release
		return nil
	})
	dialed := make(chan error, 1)
	go func() {
		_, err := s.Dial(context.Background(), request(1))
		dialed <- err
	}()
	<-entered
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Stop(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("stop: %v", err)
	}
	close(release)
	if err := <-dialed; status.Code(err) != codes.Unavailable {
		t.Errorf("the dial: %v", err)
	}
}
