package pluginhost

import (
	"bytes"
	"context"
	"errors"
	"regexp"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tunneld/tunneld/internal/pluginwire"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// TestProbeHangsUp: the process ends by itself, and what it started is left
// alone.
func TestProbeHangsUp(t *testing.T) {
	var mu sync.Mutex
	var lines [][]byte
	h := newHost(t, func(o *Options) {
		o.OnLine = func(plugin string, line []byte) {
			mu.Lock()
			defer mu.Unlock()
			if plugin == rawName {
				lines = append(lines, bytes.Clone(line))
			}
		}
	})
	p := h.start(t, rawSpec("grandchild"))
	probe, err := p.Probe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	h.log.await(t, "grandchild ")
	mu.Lock()
	found := regexp.MustCompile(`grandchild (\d+)`).FindSubmatch(bytes.Join(lines, []byte("\n")))
	mu.Unlock()
	if found == nil {
		t.Fatal("its line was not told")
	}
	grandchild, err := strconv.Atoi(string(found[1]))
	if err != nil {
		t.Fatal(err)
	}
	probe.HangUp()
	select {
	case <-probe.Exited():
	case <-time.After(patience):
		t.Fatal("it did not end")
	}
	// A number that is free again would be an error.
	if err := syscall.Kill(grandchild, syscall.SIGKILL); err != nil {
		t.Errorf("kill the grandchild: %v", err)
	}
}

// TestProbeDial: a dial that fails is told as it was answered, and what is
// handed over for one that does not is not kept.
func TestProbeDial(t *testing.T) {
	type record struct {
		pluginwire.Record
		err error
	}
	records := make(chan record, 100)
	h := newHost(t, func(o *Options) {
		o.OnRecord = func(_ string, r pluginwire.Record, err error) { records <- record{r, err} }
	})
	p := h.start(t, rawSpec(""))
	configure(t, p, 1, `{}`)
	probe, err := p.Probe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if probe.PID() != p.State().PID {
		t.Errorf("its number is %d, and %d is told", probe.PID(), p.State().PID)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	request := func(generation uint64, host string) *pluginv1.DialRequest {
		target := echoServer(t)
		return &pluginv1.DialRequest{Generation: generation, Upstream: "u", Target: &pluginv1.Target{Host: host, Port: uint32(target.Port)}}
	}
	if _, err := probe.Dial(ctx, request(9, "error")); status.Code(err) != codes.NotFound {
		t.Errorf("under no generation: %v", err)
	}
	if got, err := probe.Dial(ctx, request(1, "error")); err != nil || got.GetError().GetReason() != pluginv1.Reason_REASON_NOT_FOUND {
		t.Errorf("a failure: %v, %v", got, err)
	}
	if got, err := probe.Dial(ctx, request(1, "bad records")); err != nil || got.GetHandoff() == nil {
		t.Errorf("a success: %v, %v", got, err)
	}
	if n := p.State().Open; n != 0 {
		t.Errorf("%d dials are open", n)
	}
	// They are told in their order, and the handoff is the last.
	bad := 0
	for {
		select {
		case r := <-records:
			if r.err != nil {
				bad++
			}
			if r.Kind != pluginwire.Handoff {
				continue
			}
			if r.Token == 0 || bad == 0 {
				t.Errorf("token %d was handed over after %d bad records", r.Token, bad)
			}
			return
		case <-ctx.Done():
			t.Fatal("the handoff was not told")
		}
	}
}

// TestProbeKills: at once, and the process is replaced as any that dies.
func TestProbeKills(t *testing.T) {
	h := newHost(t, nil)
	p := h.start(t, rawSpec(""))
	probe, err := p.Probe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	probe.Kill()
	<-probe.Exited()
	h.await(t, "a restart", func(s State) bool { return s.Status == StatusRunning && s.Restarts == 1 })
	if err := p.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	var down *downError
	if _, err := p.Probe(t.Context()); !errors.As(err, &down) {
		t.Errorf("of a stopped plugin: %v", err)
	}
}
