package engine

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tunneld/tunneld/core/status"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// TestGateIsFIFO: the dial that has waited longest is let in first, also past one
// that gave up, and nobody overtakes those who wait.
func TestGateIsFIFO(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &gate{id: "direct.x"}
		g.setLimit(1)
		if err := g.enter(t.Context()); err != nil {
			t.Fatal(err)
		}
		in := make(chan int, 5)
		gone, cancel := context.WithCancel(t.Context())
		for i := range 5 {
			ctx := t.Context()
			if i == 1 {
				ctx = gone
			}
			go func() {
				if g.enter(ctx) == nil {
					in <- i
				}
			}()
			synctest.Wait()
		}
		cancel()
		synctest.Wait()
		if now := g.status(); now != (gateStatus{status.Serving, 1, 1, 4}) {
			t.Errorf("%+v", now)
		}
		var order []int
		for range 4 {
			g.leave()
			synctest.Wait()
			order = append(order, <-in)
		}
		if order[0] != 0 || order[1] != 2 || order[2] != 3 || order[3] != 4 {
			t.Errorf("they were let in as %v", order)
		}
		g.leave()
		if now := g.status(); now != (gateStatus{state: status.Serving, limit: 1}) {
			t.Errorf("at the end: %+v", now)
		}
	})
}

// TestGateLimitChanges: a reload's limit holds at once, without ending anybody.
func TestGateLimitChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &gate{id: "direct.x"}
		for range 3 {
			if err := g.enter(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		g.setLimit(2) // three are open
		in := make(chan struct{}, 3)
		for range 3 {
			go func() {
				if g.enter(t.Context()) == nil {
					in <- struct{}{}
				}
			}()
		}
		synctest.Wait()
		g.leave()
		synctest.Wait()
		if now := g.status(); now != (gateStatus{status.Serving, 2, 2, 3}) {
			t.Errorf("two of three are left: %+v", now)
		}
		g.setLimit(4)
		synctest.Wait()
		if len(in) != 2 {
			t.Errorf("%d are let in by a larger limit, want 2", len(in))
		}
		g.setLimit(0)
		synctest.Wait()
		if now := g.status(); now != (gateStatus{status.Serving, 0, 5, 0}) || len(in) != 3 {
			t.Errorf("without a limit: %+v", now)
		}
	})
}

// TestGateIsFull: the dial fails when its time is over, so that the next upstream
// is tried, and says which limit is in the way.
func TestGateIsFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &gate{id: "soht.x"}
		g.setLimit(1)
		if err := g.enter(t.Context()); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, errors.New("listener tcp.l allows 1s for dialing"))
		defer cancel()
		start := time.Now()
		err := g.enter(ctx)
		if took := time.Since(start); took != time.Second {
			t.Errorf("it took %v", took)
		}
		if err == nil || err.Stage != pluginv1.Stage_STAGE_CONNECT || err.Reason != pluginv1.Reason_REASON_UNAVAILABLE || !err.Retryable {
			t.Fatalf("%+v", err)
		}
		for _, want := range []string{"max_connections: 1 connections of upstream soht.x", "listener tcp.l allows 1s"} {
			if !strings.Contains(err.Message, want) {
				t.Errorf("%q is not in %q", want, err.Message)
			}
		}
		if now := g.status(); now != (gateStatus{state: status.Serving, limit: 1, open: 1}) {
			t.Errorf("%+v", now)
		}
	})
}

// TestGatesOutliveGenerations: an upstream that goes and comes back meets its old
// tunnels; one without any is forgotten.
func TestGatesOutliveGenerations(t *testing.T) {
	g := newGates()
	held, idle := g.of("a.held"), g.of("a.idle")
	if err := held.enter(t.Context()); err != nil {
		t.Fatal(err)
	}
	g.retain(map[string]bool{})
	if g.of("a.held") != held || g.of("a.idle") == idle {
		t.Error("the gate with a tunnel is another, or the one without any is the same")
	}
}

// TestWhoseHalfClose: half_close of the upstream stands for the listener's, and is
// the plugin's to keep where its protocol has none.
func TestWhoseHalfClose(t *testing.T) {
	listeners, own, none := time.Minute, time.Second, time.Duration(0)
	for _, c := range []struct {
		u            upstream
		plugin, pump time.Duration
	}{
		{upstream{}, 0, listeners},
		{upstream{halfClose: &own}, 0, own},
		{upstream{halfClose: &none}, 0, 0},
		{upstream{ownClock: true}, listeners, 0},
		{upstream{ownClock: true, halfClose: &own}, own, 0},
		{upstream{ownClock: true, halfClose: &none}, 0, 0},
	} {
		if plugin, pump := c.u.patience(listeners); plugin != c.plugin || pump != c.pump {
			t.Errorf("%+v: %v and %v, want %v and %v", c.u, plugin, pump, c.plugin, c.pump)
		}
	}
}
