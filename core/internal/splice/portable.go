package splice

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/tunneld/tunneld/core/internal/tunnel"
	"github.com/tunneld/tunneld/internal/sockopt"
)

// portable pumps tunnels by goroutines: two each, and one that looks at the
// timeouts while there are any.
type portable struct {
	tunnels *counter
	lines   *lineCheck

	mu    sync.Mutex
	flows map[*flow]struct{}
	stop  chan struct{} // ends the watch; nil while there are no flows
}

func (p *portable) init(tunnels *counter, lines *lineCheck) {
	p.tunnels, p.lines, p.flows = tunnels, lines, map[*flow]struct{}{}
}

func (p *portable) start(t Tunnel) {
	for _, c := range []net.Conn{t.Client, t.Upstream.Stream} {
		fit(c)
		linger(c, 0) // see finish
	}
	f := &flow{Tunnel: t, start: time.Now(), torn: make(chan struct{})}
	p.mu.Lock()
	if len(p.flows) == 0 {
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
		}
		p.mu.Unlock()
		p.tunnels.ended(t.Done, result)
	}()
}

func (p *portable) kill() {
	p.each(func(f *flow) { f.breakOff(tunnel.CloseKilled, errKilled) })
}

func (p *portable) each(do func(*flow)) {
	p.mu.Lock()
	flows := slices.Collect(maps.Keys(p.flows))
	p.mu.Unlock()
	for _, f := range flows {
		do(f)
	}
}

func (p *portable) watch(stop <-chan struct{}) {
	t := time.NewTicker(tick)
	defer t.Stop()
	for {
		select {
		case <-stop:
			return
		case now := <-t.C:
			p.each(func(f *flow) {
				f.checkTimeouts(now)
				f.checkLines(p.lines, now)
			})
		}
	}
}

// flow is one tunnel under way. Its two directions each have a goroutine.
type flow struct {
	Tunnel
	start         time.Time
	upped, downed atomic.Int64
	active        atomic.Int64 // when the last byte moved, in nanoseconds after start
	half          atomic.Bool  // one direction has ended
	backlog       backlog      // the watch's, as what follows
	ticks         uint32
	lines         [2]sockopt.Line
	// The write sides that are about to be, or are, shut down.
	upstreamShut, clientShut atomic.Bool

	mu     sync.Mutex
	reason tunnel.CloseReason // empty until decided
	err    error
	broken bool          // breakOff was called
	torn   chan struct{} // closed once it has closed both connections
	closed bool          // both were closed cleanly
	// over: the plugin has ended the tunnel cleanly. sinking: what the client
	// sends is dropped.
	over, sinking bool
}

func (f *flow) run() Result {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		defer cancel()
		f.up()
	})
	f.down(ctx)
	wg.Wait()
	f.finish()
	return Result{Reason: f.reason, Err: f.err, Up: f.upped.Load(), Down: f.downed.Load()}
}

// up carries the client's bytes to the upstream.
func (f *flow) up() {
	readErr, writeErr := f.carry(f.Upstream.Stream, f.Client, f.ClientAhead, &f.upped)
	f.ClientAhead = nil
	switch {
	case f.isOver():
		f.sink()
	case writeErr != nil:
		f.upstreamWriteFailed(writeErr)
	case readErr != nil:
		f.breakOff(tunnel.CloseClientReset, fmt.Errorf("read from client: %w", readErr))
	default:
		f.ended(tunnel.CloseClientEOF)
		if r := f.Upstream.Relay; r != nil {
			if err := r.AnnounceEOF(); err != nil {
				f.upstreamWriteFailed(err)
				return
			}
		}
		f.upstreamShut.Store(true)
		if err := closeWrite(f.Upstream.Stream); err != nil {
			f.upstreamWriteFailed(err)
		}
	}
}

// upstreamWriteFailed ends the tunnel after the upstream took no more bytes:
// cleanly where a relay's plugin says that the tunnel is over.
func (f *flow) upstreamWriteFailed(cause error) {
	if r := f.Upstream.Relay; r != nil {
		ctx, cancel := context.WithTimeout(context.Background(), wordWait)
		defer cancel()
		err := r.ConfirmEnd(ctx)
		if err == nil {
			f.ended(tunnel.CloseUpstreamEOF)
			f.sink()
			return
		}
		cause = fmt.Errorf("%w (%w)", cause, err)
	}
	f.breakOff(upstreamReason(cause), fmt.Errorf("write to upstream: %w", cause))
}

// sink reads and drops what the client sends after the plugin has ended the
// tunnel: a socket that is closed with unread bytes resets its peer, and what
// the client has yet to receive is lost.
func (f *flow) sink() {
	f.mu.Lock()
	f.sinking = true
	// It fails once the tunnel is broken off.
	_ = f.Client.SetReadDeadline(time.Now().Add(wordWait))
	f.mu.Unlock()
	buf := buffers.get()
	defer buffers.put(buf)
	for {
		if _, err := f.Client.Read(buf[:]); err != nil {
			return
		}
	}
}

// down carries the upstream's bytes to the client. ctx is done once up is.
func (f *flow) down(ctx context.Context) {
	readErr, writeErr := f.carry(f.Client, f.Upstream.Stream, f.Upstream.ReadAhead, &f.downed)
	f.Upstream.ReadAhead = nil
	r := f.Upstream.Relay
	if r != nil && writeErr == nil && (readErr == nil || errors.Is(readErr, syscall.ECONNRESET)) {
		// A relay that was closed with bytes of ours in it reads as a reset,
		// after all that the plugin sent.
		readErr = r.ConfirmEOF()
	}
	switch {
	case writeErr != nil:
		f.breakOff(tunnel.CloseClientReset, fmt.Errorf("write to client: %w", writeErr))
	case readErr != nil:
		f.breakOff(upstreamReason(readErr), fmt.Errorf("read from upstream: %w", readErr))
	default:
		f.ended(tunnel.CloseUpstreamEOF)
		f.clientShut.Store(true)
		if err := closeWrite(f.Client); err != nil {
			f.breakOff(tunnel.CloseClientReset, fmt.Errorf("end client: %w", err))
		}
		if r != nil {
			f.awaitEnd(ctx, r)
		}
	}
}

// awaitEnd waits for the plugin's word on the tunnel while up goes on: the client
// may be silent from here on.
func (f *flow) awaitEnd(ctx context.Context, r tunnel.Relay) {
	switch err := r.ConfirmEnd(ctx); {
	case err == nil:
		f.mu.Lock()
		defer f.mu.Unlock()
		f.over = true
		if !f.sinking {
			_ = f.Client.SetReadDeadline(time.Now())
		}
	case ctx.Err() == nil:
		f.breakOff(upstreamReason(err), fmt.Errorf("end of upstream: %w", err))
	}
}

// carry copies ahead and then src to dst, until src ends (nil, nil) or one of
// them fails.
func (f *flow) carry(dst, src net.Conn, ahead []byte, count *atomic.Int64) (readErr, writeErr error) {
	if len(ahead) > 0 {
		if err := f.write(dst, ahead, count); err != nil {
			return nil, err
		}
	}
	buf := buffers.get()
	defer buffers.put(buf)
	for {
		n, err := src.Read(buf[:])
		if n > 0 {
			if err := f.write(dst, buf[:n], count); err != nil {
				return nil, err
			}
		}
		if errors.Is(err, io.EOF) {
			return f.cut(src), nil
		}
		if err != nil {
			return err, nil
		}
	}
}

// cut tells the end of src from a reset that the other direction's write has seen: the
// system reports a reset once, and then a read says "end".
func (f *flow) cut(src net.Conn) error {
	shut := &f.upstreamShut
	if src == f.Client {
		shut = &f.clientShut
	}
	// Once that direction has ended, it was by no error.
	if !shut.Load() && isCut(src) && !shut.Load() {
		return syscall.ECONNRESET
	}
	return nil
}

func (f *flow) write(dst net.Conn, b []byte, count *atomic.Int64) error {
	n, err := dst.Write(b)
	count.Add(int64(n))
	if t := f.Traffic; t != nil {
		moved := &t.Up
		if count == &f.downed {
			moved = &t.Down
		}
		moved.Copied.Add(int64(n))
	}
	f.active.Store(int64(time.Since(f.start)))
	return err
}

// ended notes that one direction is over; the first one names the reason.
func (f *flow) ended(reason tunnel.CloseReason) {
	f.active.Store(int64(time.Since(f.start)))
	f.half.Store(true)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.reason == "" {
		f.reason = reason
	}
}

// breakOff ends the tunnel and tells both sides that it was not a clean end. The
// first call decides the reason, over a clean end as well. It does not block,
// where to tell the plugin does: finish waits for that.
func (f *flow) breakOff(reason tunnel.CloseReason, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.broken || f.closed {
		return
	}
	f.broken, f.reason, f.err = true, reason, err
	if f.Upstream.Relay == nil {
		f.tear()
		return
	}
	go func() {
		f.Upstream.Relay.Abort(err.Error())
		f.tear()
	}()
}

func (f *flow) tear() {
	reset(f.Upstream.Stream)
	reset(f.Client)
	close(f.torn)
}

// finish closes both connections after both directions have ended.
func (f *flow) finish() {
	r := f.Upstream.Relay
	if r != nil && !f.isBroken() {
		err := r.ConfirmEnd(context.Background())
		if err != nil {
			f.breakOff(upstreamReason(err), fmt.Errorf("end of upstream: %w", err))
		}
	}
	if f.close() {
		for _, c := range []net.Conn{f.Upstream.Stream, f.Client} {
			// Until now closing c was a reset: the system closes what a killed
			// process leaves, and half a stream must not look like a whole one.
			linger(c, -1)
			_ = c.Close() // the descriptor is gone, whatever it returns
		}
	} else {
		<-f.torn
	}
	if r != nil {
		r.Ended()
	}
}

// close settles that the end is clean, unless the tunnel was broken off.
func (f *flow) close() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = !f.broken
	return f.closed
}

func (f *flow) isOver() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.over
}

func (f *flow) isBroken() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.broken
}

func (f *flow) checkTimeouts(now time.Time) {
	age, active, half := now.Sub(f.start), time.Duration(f.active.Load()), f.half.Load()
	quiet := age - active
	if f.backlog.shrinks(active, quiet, f.Timeouts.patience(half), f.held) {
		// If a byte has moved since, that was no earlier than this.
		f.active.CompareAndSwap(int64(active), int64(age))
		quiet = 0
	}
	if reason, err := f.Timeouts.expired(age, quiet, half); err != nil {
		f.breakOff(reason, err)
	}
}

// checkLines breaks the tunnel off where a side's line is dead.
func (f *flow) checkLines(c *lineCheck, now time.Time) {
	f.ticks++
	if !c.due(f.ticks, 0) {
		return
	}
	for side, conn := range [2]net.Conn{f.Client, f.Upstream.Stream} {
		if c.deadConn(&f.lines[side], conn, now.Sub(f.start)) {
			f.breakOff(c.ended(side))
			return
		}
	}
}

// held is how many bytes the connections hold for their peers.
func (f *flow) held() int { return heldBy(f.Client) + heldBy(f.Upstream.Stream) }

func closeWrite(c net.Conn) error {
	if h, ok := c.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return c.Close()
}

// reset closes c such that a TCP peer is reset. A wrapper is gone around: closing
// it may say that the end is a clean one, as TLS does.
func reset(c net.Conn) {
	linger(c, 0)
	_ = innermost(c).Close()
}

// linger is SetLinger of the TCP connection under c.
func linger(c net.Conn, seconds int) {
	if t, ok := innermost(c).(*net.TCPConn); ok {
		_ = t.SetLinger(seconds) // it fails on a connection that is reset already
	}
}

// innermost is the connection under c's wrappers.
func innermost(c net.Conn) net.Conn {
	for {
		w, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			return c
		}
		c = w.NetConn()
	}
}
