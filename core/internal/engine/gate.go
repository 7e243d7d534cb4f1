package engine

import (
	"container/list"
	"context"
	"fmt"
	"sync"

	"github.com/tunneld/tunneld/core/internal/tunnel"
	"github.com/tunneld/tunneld/core/status"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// gate counts the connections of one upstream, from the dial to the tunnel's
// end, and holds back dials beyond a limit in the order in which they came. It
// outlives generations.
type gate struct {
	id   string
	life life // the upstream's; draining: no configuration has it any more
	// waits, unless nil, is called when a dial has to wait: some of the connections may be
	// kept for requests that have not come yet.
	waits func(*gate)

	mu      sync.Mutex
	limit   int // 0: none
	open    int
	waiting list.List // of chan struct{}, closed once its dial is let in
}

// enter takes a place, or says why there is none when ctx ends.
func (g *gate) enter(ctx context.Context) *tunnel.DialError {
	g.mu.Lock()
	if g.roomy() && g.waiting.Len() == 0 {
		g.open++
		g.mu.Unlock()
		return nil
	}
	letIn := make(chan struct{})
	place := g.waiting.PushBack(letIn)
	g.mu.Unlock()
	if g.waits != nil {
		g.waits(g)
	}
	select {
	case <-letIn:
		return nil
	case <-ctx.Done():
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-letIn:
		g.open--
	default:
		g.waiting.Remove(place)
	}
	g.admit()
	return g.full(ctx)
}

// full is called with mu held.
func (g *gate) full(ctx context.Context) *tunnel.DialError {
	return &tunnel.DialError{
		Upstream:  g.id,
		Stage:     pluginv1.Stage_STAGE_CONNECT,
		Reason:    pluginv1.Reason_REASON_UNAVAILABLE,
		Retryable: true,
		Message:   fmt.Sprintf("max_connections: %d connections of upstream %s are open, and no place became free in time (%s)", g.open, g.id, context.Cause(ctx)),
		Hint:      "raise max_connections of the upstream if its far end can take more, or find out who holds the connections",
		Err:       context.Cause(ctx),
	}
}

// crowded says whether a dial waits.
func (g *gate) crowded() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.waiting.Len() > 0
}

// leave gives a place back.
func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open--
	g.admit()
}

// setLimit takes effect at once; connections beyond the new limit stay.
func (g *gate) setLimit(n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.limit = n
	g.admit()
}

// roomy is called with mu held.
func (g *gate) roomy() bool { return g.limit == 0 || g.open < g.limit }

// admit lets in the dial that has waited longest. It is called with mu held.
func (g *gate) admit() {
	for first := g.waiting.Front(); first != nil && g.roomy(); first = g.waiting.Front() {
		close(g.waiting.Remove(first).(chan struct{}))
		g.open++
	}
}

// gateStatus is a gate at one moment.
type gateStatus struct {
	state                status.State
	limit, open, waiting int
}

func (g *gate) status() gateStatus {
	g.mu.Lock()
	defer g.mu.Unlock()
	return gateStatus{g.life.is(), g.limit, g.open, g.waiting.Len()}
}

// gates are those of all upstreams, by ID.
type gates struct {
	waits func(*gate) // each gate's

	mu   sync.Mutex
	byID map[string]*gate
}

func newGates() *gates { return &gates{byID: map[string]*gate{}} }

// of returns the gate of an upstream, which is made where there is none.
func (g *gates) of(id string) *gate {
	g.mu.Lock()
	defer g.mu.Unlock()
	one := g.byID[id]
	if one == nil {
		one = &gate{id: id, waits: g.waits}
		g.byID[id] = one
	}
	return one
}

// retain keeps the gates of these upstreams, which are those of the configuration. The
// others drain, and are forgotten once they have no open connection.
func (g *gates) retain(ids map[string]bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for id, one := range g.byID {
		switch {
		case ids[id]:
			one.life.turn(status.Serving)
		case one.status().open == 0:
			one.life.turn(status.Closed)
			delete(g.byID, id)
		default:
			one.life.turn(status.Draining)
		}
	}
}
