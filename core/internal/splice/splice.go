// Package splice moves the bytes of tunnels: first what either handshake read too
// far, then both directions until each has ended. It passes half-close and reset on
// exactly. It accepts and dials nothing.
//
// On Linux a tunnel between two bare sockets belongs to one of a few workers,
// each with its own epoll, and costs two descriptors and a small struct while
// it is idle; bulk moves by splice(2). Everything else (a wrapped connection,
// plugins that handed over both sides, another system) is pumped by two goroutines
// with pooled buffers. Both keep the same promises.
package splice

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tunneld/tunneld/core/internal/tunnel"
	"github.com/tunneld/tunneld/internal/bare"
)

// Tunnel is two connections to be joined. The pump owns both from Start on.
type Tunnel struct {
	Client, Upstream tunnel.End
	Timeouts         Timeouts
	// Rates, unless nil, bound how fast the bytes move.
	Rates *Rates
	// Traffic, unless nil, is added to while the tunnel lives, at least once a
	// second; it may be shared.
	Traffic *tunnel.Traffic
	// Done is called once, after both connections are closed. The tunnel counts as
	// active until it has returned, so that Wait implies all outcomes are reported.
	Done func(Result)
}

// Timeouts end a tunnel. Zero means never. They are checked once a second, so
// each may be exceeded by that much.
//
// A byte counts when it is written, and while a TCP connection or a relay still
// holds some, as long as its peer takes any of them.
type Timeouts struct {
	// Idle is the longest time without a byte in either direction.
	Idle time.Duration
	// HalfClose is the same once one direction has ended.
	HalfClose time.Duration
	// Lifetime is the longest time altogether.
	Lifetime time.Duration
}

// Result is how a tunnel ended.
type Result struct {
	Reason tunnel.CloseReason
	// Err is what broke the tunnel; nil after a clean end.
	Err error
	// Up and Down are the bytes written towards the upstream and the client.
	Up, Down int64
}

// HeldUpError ends a tunnel whose upstream a plugin made the pump wait for. Only a
// plugin that has kept a copy of the socket that it handed over can do that.
type HeldUpError struct{ Plugin string }

// Error names the plugin.
func (e *HeldUpError) Error() string {
	return fmt.Sprintf("plugin %q kept a copy of the socket that it handed over, and stalled the pump with it", e.Plugin)
}

// tick is how often timeouts are looked at.
const tick = time.Second

// wordWait bounds how long the word of a plugin that has closed its end of a
// relay may be on its way.
const wordWait = 5 * time.Second

var errKilled = errors.New("ended by the daemon")

// Pump moves the bytes of any number of tunnels. See New.
type Pump struct {
	began    time.Time // of its clock
	tunnels  counter
	portable portable
	kernel   kernel
}

// New returns a pump without tunnels. It is closed with Close.
func New() (*Pump, error) { return newWith(defaultLineCheck()) }

func newWith(lines *lineCheck) (*Pump, error) {
	p := &Pump{began: time.Now()}
	p.tunnels.init()
	p.portable.init(&p.tunnels, lines, p.began)
	if err := p.kernel.init(&p.tunnels, lines, p.began); err != nil {
		return nil, err
	}
	return p, nil
}

// Start moves t's bytes until it ends and returns at once.
func (p *Pump) Start(t Tunnel) {
	p.tunnels.add()
	if p.kernel.start(&t) {
		return
	}
	if err := t.wrap(); err != nil {
		t.abandon(err)
		p.tunnels.ended(t.Done, Result{Reason: tunnel.CloseKilled, Err: err})
		return
	}
	p.portable.start(t)
}

// wrap turns bare sockets into what the portable pump reads and writes.
func (t *Tunnel) wrap() error {
	if err := t.Client.UseStream(); err != nil {
		return fmt.Errorf("client: %w", err)
	}
	if err := t.Upstream.UseStream(); err != nil {
		return fmt.Errorf("upstream: %w", err)
	}
	return nil
}

// abandon ends a tunnel that never began.
func (t *Tunnel) abandon(cause error) {
	for _, e := range []*tunnel.End{&t.Client, &t.Upstream} {
		if e.Relay != nil {
			e.Relay.Abort(cause.Error())
		}
		if e.Socket != nil {
			e.Socket.Reset()
		}
		if e.Stream != nil {
			bare.Reset(e.Stream)
		}
		if e.Relay != nil {
			e.Relay.Ended()
		}
	}
}

// Limit sets the bandwidth of some blocks, also for the tunnels that are open. The other
// blocks keep theirs.
func (p *Pump) Limit(blocks map[*Rate]Bandwidth) {
	changed, now := false, time.Since(p.began)
	for r, b := range blocks {
		changed = r.set(b, now) || changed
	}
	if changed {
		p.kernel.measure()
		p.portable.measure()
	}
}

// Stats is what a pump holds at one moment, and what it has made since its start.
type Stats struct {
	Tunnels int
	Workers int // of the kernel's pump; 0: this system has none
	Paused  int // directions of tunnels that wait for bandwidth
	// PipesRefused counts the tries to make a pipe that the system refused,
	// PipesSmall the pipes that it made smaller than asked for.
	PipesInUse, PipesIdle               int
	PipesMade, PipesRefused, PipesSmall uint64
	// Buffers are shared by all pumps of the process.
	BuffersInUse int
	BuffersMade  uint64
}

// Stats returns the pump's.
func (p *Pump) Stats() Stats {
	s := Stats{
		Tunnels:      p.Active(),
		Paused:       int(p.portable.waiting.Load()),
		BuffersInUse: int(spare.inUse.Load() + buffers.inUse.Load()),
		BuffersMade:  spare.made.Load() + buffers.made.Load(),
	}
	p.kernel.stats(&s)
	return s
}

// pool is a sync.Pool of buffers that knows how many are in use.
type pool[T any] struct {
	sync.Pool
	inUse atomic.Int64
	made  atomic.Uint64
}

func (p *pool[T]) get() *T {
	p.inUse.Add(1)
	if b, ok := p.Get().(*T); ok {
		return b
	}
	p.made.Add(1)
	return new(T)
}

func (p *pool[T]) put(b *T) {
	p.inUse.Add(-1)
	p.Put(b)
}

const (
	// smallRead is what one read of the kernel's pump takes: a read and a write
	// of a small message cost less than two splices. A read that fills it makes
	// the direction bulk.
	smallRead = 16 << 10
	// bufferSize is what one read of the portable pump takes at most.
	bufferSize = 64 << 10
	// budget is how many bytes a direction may move in one turn, so that one
	// fast stream does not starve the rest.
	budget = 1 << 20
)

var (
	spare   pool[[smallRead]byte] // holds what a socket did not take at once
	buffers pool[[bufferSize]byte]
)

// Active is the number of tunnels.
func (p *Pump) Active() int { return int(p.tunnels.n.Load()) }

// Wait returns once there are no tunnels, or with ctx's error.
func (p *Pump) Wait(ctx context.Context) error { return p.tunnels.wait(ctx) }

// Kill breaks every tunnel off; Wait tells when they are gone.
func (p *Pump) Kill() {
	p.kernel.kill()
	p.portable.kill()
}

// Close breaks every tunnel off and frees what the pump holds. Start must not
// be called again.
func (p *Pump) Close() error {
	p.Kill()
	err := p.tunnels.wait(context.Background())
	return errors.Join(err, p.kernel.close())
}

// counter counts tunnels and tells when there are none.
type counter struct {
	n    atomic.Int64
	mu   sync.Mutex
	zero *sync.Cond
}

func (c *counter) init() { c.zero = sync.NewCond(&c.mu) }

func (c *counter) add() { c.n.Add(1) }

// ended reports a tunnel that has ended, and counts it no more.
func (c *counter) ended(done func(Result), r Result) {
	if done != nil {
		done(r)
	}
	if c.n.Add(-1) == 0 {
		c.mu.Lock()
		c.zero.Broadcast()
		c.mu.Unlock()
	}
}

func (c *counter) wait(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.zero.Broadcast()
	})
	defer stop()
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.n.Load() > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		c.zero.Wait()
	}
	return nil
}

// The reasons of tunnels that a side has ended, by the side.
var (
	eofReasons   = [2]tunnel.CloseReason{tunnel.CloseClientEOF, tunnel.CloseUpstreamEOF}
	resetReasons = [2]tunnel.CloseReason{tunnel.CloseClientReset, tunnel.CloseUpstreamReset}
)

// The two sides of a tunnel. Direction d carries the bytes of side d to the
// other.
const (
	client   = 0
	upstream = 1
)

// movedBy is what of a traffic the bytes of a side count in; nil: nobody asks.
func movedBy(t *tunnel.Traffic, side int) *tunnel.Moved {
	switch {
	case t == nil:
		return nil
	case side == client:
		return &t.Up
	}
	return &t.Down
}

// brokenBy names the reason of a tunnel that a side broke.
func brokenBy(side int, err error) tunnel.CloseReason {
	if errors.Is(err, tunnel.ErrPluginDied) {
		return tunnel.ClosePluginDied
	}
	return resetReasons[side]
}

// patience is the longest time that a tunnel may be quiet; 0: there is none.
func (t *Timeouts) patience(half bool) time.Duration {
	if half && t.HalfClose > 0 && (t.Idle == 0 || t.HalfClose < t.Idle) {
		return t.HalfClose
	}
	return t.Idle
}

// backlog tells a quiet tunnel from one with a slow peer: what was written to a
// socket may be on its way for minutes, and breaking the tunnel off discards it.
// It looks twice, once half of the patience is over and at its end.
type backlog struct {
	active time.Duration // of the tunnel, when it looked
	bytes  int32
	looked bool
}

// shrinks says whether the bytes on their way have become fewer while the tunnel
// was quiet. active is when its last byte moved; held counts what its sockets
// hold.
func (b *backlog) shrinks(active, quiet, patience time.Duration, held func() int) bool {
	if patience == 0 || quiet <= patience/2 {
		return false
	}
	if !b.looked || b.active != active {
		*b = backlog{active, int32(held()), true}
		return false
	}
	return quiet > patience && b.bytes > 0 && held() < int(b.bytes)
}

// expired returns the timeout that a tunnel has exceeded, or an empty reason.
// age is the time since its start, quiet that since its last byte.
func (t *Timeouts) expired(age, quiet time.Duration, half bool) (tunnel.CloseReason, error) {
	over := func(limit, d time.Duration) bool { return limit > 0 && d > limit }
	switch {
	case over(t.Lifetime, age):
		return tunnel.CloseLifetime, errors.New("lifetime of " + t.Lifetime.String() + " is over")
	case half && over(t.HalfClose, quiet):
		return tunnel.CloseHalfClosed, errors.New("no byte for " + t.HalfClose.String() + " after one side had ended")
	case over(t.Idle, quiet):
		return tunnel.CloseIdle, errors.New("no byte for " + t.Idle.String())
	}
	return "", nil
}
