// Package splice moves the bytes of tunnels: first what either handshake read
// too far, then both directions until each has ended, with half-close and reset
// passed on exactly. It accepts and dials nothing.
package splice

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tunneld/tunneld/core/internal/tunnel"
)

// Tunnel is two connections to be joined. The pump owns both from Start on.
type Tunnel struct {
	// Client is a bare *net.TCPConn or *net.UnixConn, or a wrapper with
	// CloseWrite.
	Client net.Conn
	// ClientAhead are bytes from the client that come before Client's.
	ClientAhead []byte
	Upstream    *tunnel.Conn
	Timeouts    Timeouts
	// Count is live while the tunnel is; nil: only the Result tells.
	Count *Count
	// Done is called once, after both connections are closed. It must not
	// block.
	Done func(Result)
}

// Timeouts end a tunnel. Zero means never. They are checked once a second, so
// each may be exceeded by that much.
type Timeouts struct {
	// Idle is the longest time without a byte in either direction.
	Idle time.Duration
	// HalfClose is the same once one direction has ended.
	HalfClose time.Duration
	// Lifetime is the longest time altogether.
	Lifetime time.Duration
}

// Count is the number of bytes that were written to either side.
type Count struct {
	Up, Down atomic.Int64 // towards the upstream, towards the client
}

// Result is how a tunnel ended.
type Result struct {
	Reason tunnel.CloseReason
	// Err is what broke the tunnel; nil after a clean end.
	Err      error
	Up, Down int64
}

// tick is how often timeouts are looked at.
const tick = time.Second

// Pump moves the bytes of any number of tunnels. See New.
type Pump struct {
	mu    sync.Mutex
	flows map[*flow]struct{}
	idle  chan struct{} // closed while there are no flows
	stop  chan struct{} // ends the watch; nil while there are no flows
}

// New returns a pump without tunnels. It needs no closing: it holds nothing
// while it has no tunnels.
func New() *Pump {
	p := &Pump{flows: map[*flow]struct{}{}, idle: make(chan struct{})}
	close(p.idle)
	return p
}

// Start moves t's bytes until it ends and returns at once.
func (p *Pump) Start(t Tunnel) {
	f := newFlow(t)
	p.mu.Lock()
	if len(p.flows) == 0 {
		p.idle = make(chan struct{})
		p.stop = make(chan struct{})
		go p.watch(p.stop)
	}
	p.flows[f] = struct{}{}
	p.mu.Unlock()
	go func() {
		result := f.run()
		p.mu.Lock()
		delete(p.flows, f)
		if len(p.flows) == 0 {
			close(p.stop)
			close(p.idle)
		}
		p.mu.Unlock()
		if t.Done != nil {
			t.Done(result)
		}
	}()
}

// Active is the number of tunnels.
func (p *Pump) Active() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.flows)
}

// Wait returns once there are no tunnels, or with ctx's error.
func (p *Pump) Wait(ctx context.Context) error {
	p.mu.Lock()
	idle := p.idle
	p.mu.Unlock()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

var errKilled = errors.New("ended by the daemon")

// Kill breaks every tunnel off; Wait tells when they are gone.
func (p *Pump) Kill() {
	p.each(func(f *flow) { f.breakOff(tunnel.CloseKilled, errKilled) })
}

func (p *Pump) each(do func(*flow)) {
	p.mu.Lock()
	flows := make([]*flow, 0, len(p.flows))
	for f := range p.flows {
		flows = append(flows, f)
	}
	p.mu.Unlock()
	for _, f := range flows {
		do(f)
	}
}

func (p *Pump) watch(stop <-chan struct{}) {
	t := time.NewTicker(tick)
	defer t.Stop()
	for {
		select {
		case <-stop:
			return
		case now := <-t.C:
			p.each(func(f *flow) { f.checkTimeouts(now) })
		}
	}
}
