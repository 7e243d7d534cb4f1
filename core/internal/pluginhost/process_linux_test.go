package pluginhost

import (
	"context"
	"log/slog"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tunneld/tunneld/core/internal/tunnel"
	"github.com/tunneld/tunneld/internal/pluginwire"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// heard keeps what a process says, line by line and record by record.
type heard struct {
	lines   chan string
	records chan sent
}

type sent struct {
	pluginwire.Record
	err error
}

func newHeard() heard { return heard{make(chan string, 100), make(chan sent, 100)} }

func (h heard) Printed(l Line)                      { h.lines <- string(l.Raw) }
func (h heard) Silent()                             {}
func (h heard) Sent(r pluginwire.Record, err error) { h.records <- sent{r, err} }
func (h heard) Reported([]*pluginv1.UpstreamStatus) {}

// launch starts the raw plugin without a supervisor.
func launch(t *testing.T, mode string) (*Process, heard) {
	t.Helper()
	h := newHost(t, nil)
	w := newHeard()
	p, err := h.Launch(t.Context(), Launch{Spec: hasty(rawSpec(mode)), Log: slog.New(slog.DiscardHandler), Watcher: w})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Terminate(t.Context(), patience); err != nil {
			t.Error(err)
		}
	})
	return p, w
}

func (h heard) await(t *testing.T, prefix string) string {
	t.Helper()
	late := time.After(patience)
	for {
		select {
		case line := <-h.lines:
			if rest, ok := strings.CutPrefix(line, prefix); ok {
				return rest
			}
		case <-late:
			t.Fatalf("no line %q", prefix)
		}
	}
}

func awaitEnd(t *testing.T, p *Process) {
	t.Helper()
	select {
	case <-p.Exited():
	case <-time.After(patience):
		t.Fatal("it did not end")
	}
}

// TestAbandonedProcess ends by itself, and what it started is left alone.
func TestAbandonedProcess(t *testing.T) {
	p, w := launch(t, "grandchild")
	grandchild, err := strconv.Atoi(w.await(t, "grandchild "))
	if err != nil {
		t.Fatal(err)
	}
	p.Abandon()
	awaitEnd(t, p)
	// A number that is free again would be an error.
	if err := syscall.Kill(grandchild, syscall.SIGKILL); err != nil {
		t.Errorf("kill the grandchild: %v", err)
	}
}

// TestUnsupervisedProcess is dialed, told what it sends, and not started again.
func TestUnsupervisedProcess(t *testing.T) {
	p, w := launch(t, "")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := p.Service().Configure(ctx, &pluginv1.ConfigureRequest{Generation: 1, Upstreams: upstreams(`{}`)}); err != nil {
		t.Fatal(err)
	}
	request := func(generation uint64, host string) *pluginv1.DialRequest {
		return &pluginv1.DialRequest{
			Generation: generation, Upstream: "u", Token: 1 << 62,
			Target: &pluginv1.Target{Host: host, Port: uint32(echoServer(t).Port)},
		}
	}
	if _, err := p.Tunnels().Dial(ctx, request(9, "error")); status.Code(err) != codes.NotFound {
		t.Errorf("under no generation: %v", err)
	}
	if got, err := p.Tunnels().Dial(ctx, request(1, "error")); err != nil || got.GetError().GetReason() != pluginv1.Reason_REASON_NOT_FOUND {
		t.Errorf("a failure: %v, %v", got, err)
	}
	if got, err := p.Tunnels().Dial(ctx, request(1, "bad records")); err != nil || got.GetHandoff() == nil {
		t.Errorf("a success: %v, %v", got, err)
	}
	// They are told in their order, and the handoff, which nobody waits for, is the last.
	for bad, last := 0, false; !last; {
		select {
		case r := <-w.records:
			if r.err != nil {
				bad++
			}
			last = r.Kind == pluginwire.Handoff
			if last && (bad == 0 || r.Token != 1<<62) {
				t.Errorf("token %d was handed over after %d bad records", r.Token, bad)
			}
		case <-ctx.Done():
			t.Fatal("the handoff was not told")
		}
	}
	if n := p.tokens.len(); n != 0 {
		t.Errorf("%d dials are open", n)
	}
	c, err := p.Dial(ctx, 1, "u", tunnel.Dial{Target: tunnel.Target{Host: "bad records", Port: echoServer(t).Port}})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.UseStream(); err != nil {
		t.Fatal(err)
	}
	_ = c.Stream.Close()
	p.Signal(syscall.SIGKILL)
	awaitEnd(t, p)
}
