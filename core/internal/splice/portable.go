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
	"github.com/tunneld/tunneld/internal/bare"
	"github.com/tunneld/tunneld/internal/sockopt"
)

// portable pumps tunnels by goroutines: two each, and one that looks at the
// timeouts while there are any.
type portable struct {
	tunnels *counter
	lines   *lineCheck
	began   time.Time // of the pump's clock
	waiting atomic.Int64

	mu    sync.Mutex
	flows map[*flow]struct{}
	stop  chan struct{} // ends the watch; nil while there are no flows
}

func (p *portable) init(tunnels *counter, lines *lineCheck, began time.Time) {
	p.tunnels, p.lines, p.began, p.flows = tunnels, lines, began, map[*flow]struct{}{}
}

func (p *portable) start(t Tunnel) {
	for _, e := range []*tunnel.End{&t.Client, &t.Upstream} {
		fit(e.Stream)
		linger(e.Stream, 0) // see finish
	}
	f := newFlow(t, p)
	p.mu.Lock()
	if len(p.flows) == 0 {
		p.stop = make(chan struct{})
		go p.watch(p.stop)
	}
	p.flows[f] = struct{}{}
	p.mu.Unlock()
	f.measure() // from here on it learns of changes
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
	pump    *portable
	sides   [2]side
	start   time.Time
	meter   atomic.Pointer[meter]
	active  atomic.Int64 // when the last byte moved, in nanoseconds after start
	half    atomic.Bool  // one direction has ended
	backlog backlog      // the watch's, as what follows
	ticks   uint32
	lines   [2]sockopt.Line

	mu     sync.Mutex
	reason tunnel.CloseReason // empty until decided
	err    error
	broken bool          // breakOff was called
	torn   chan struct{} // closed once it has closed both connections
	woken  chan struct{} // closed, and made anew, where pauses end early
	closed bool          // both were closed cleanly
}

func newFlow(t Tunnel, p *portable) *flow {
	f := &flow{Tunnel: t, pump: p, start: time.Now(), torn: make(chan struct{}), woken: make(chan struct{})}
	for s, e := range []*tunnel.End{&f.Client, &f.Upstream} {
		f.sides[s].End, f.sides[s].name, f.sides[s].passed = e, sideNames[s], make(chan struct{})
	}
	return f
}

func (f *flow) run() Result {
	var wg sync.WaitGroup
	wg.Go(func() { f.direction(client) })
	f.direction(upstream)
	wg.Wait()
	f.finish()
	return Result{Reason: f.reason, Err: f.err, Up: f.sides[client].moved.Load(), Down: f.sides[upstream].moved.Load()}
}

// direction carries the bytes of side d to the other, and passes their end on.
func (f *flow) direction(d int) {
	src, dst := &f.sides[d], &f.sides[1-d]
	clean := f.pass(d)
	close(src.passed)
	if clean && src.Relay != nil {
		f.awaitEnd(d, dst.passed)
	}
}

// pass says whether the direction has ended cleanly.
func (f *flow) pass(d int) bool {
	src, dst := &f.sides[d], &f.sides[1-d]
	readErr, writeErr := f.carry(d)
	if src.Relay != nil && writeErr == nil && (readErr == nil || errors.Is(readErr, syscall.ECONNRESET)) {
		// A relay that was closed with bytes of ours in it reads as a reset,
		// after all that the plugin sent.
		readErr = src.Relay.ConfirmEOF()
	}
	switch {
	case f.isOver(1 - d):
		f.sink(d)
		return false
	case writeErr != nil:
		return f.unwritten(1-d, fmt.Errorf("write to %s: %w", dst.name, writeErr))
	case readErr != nil:
		f.breakOff(brokenBy(d, readErr), fmt.Errorf("read from %s: %w", src.name, readErr))
		return false
	}
	f.ended(eofReasons[d])
	if dst.Relay != nil {
		if err := dst.Relay.AnnounceEOF(); err != nil {
			return f.unwritten(1-d, fmt.Errorf("end %s: %w", dst.name, err))
		}
	}
	dst.shut.Store(true)
	if err := closeWrite(dst.Stream); err != nil {
		return f.unwritten(1-d, fmt.Errorf("end %s: %w", dst.name, err))
	}
	return true
}

// unwritten ends the tunnel after a side took no more bytes: cleanly where a relay's
// plugin says that the tunnel is over. It returns false.
func (f *flow) unwritten(to int, cause error) bool {
	if r := f.sides[to].Relay; r != nil {
		ctx, cancel := context.WithTimeout(context.Background(), wordWait)
		defer cancel()
		err := r.ConfirmEnd(ctx)
		if err == nil {
			f.ended(eofReasons[to])
			f.sink(1 - to)
			return false
		}
		cause = fmt.Errorf("%w (%w)", cause, err)
	}
	f.breakOff(brokenBy(to, cause), cause)
	return false
}

// sink reads and drops what a side sends after the other's plugin has ended the
// tunnel: a socket that is closed with unread bytes resets its peer, and what the
// peer has yet to receive is lost.
func (f *flow) sink(from int) {
	src := &f.sides[from]
	f.mu.Lock()
	src.sinks = true
	// It fails once the tunnel is broken off.
	_ = src.Stream.SetReadDeadline(time.Now().Add(wordWait))
	f.mu.Unlock()
	buf := buffers.get()
	defer buffers.put(buf)
	for {
		if _, err := src.Stream.Read(buf[:]); err != nil {
			return
		}
	}
}

// awaitEnd waits for the word of a side's plugin on the tunnel while the other
// direction goes on, until that has passed its end: its source may be silent from
// here on.
func (f *flow) awaitEnd(of int, passed <-chan struct{}) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-passed:
			cancel()
		case <-ctx.Done():
		}
	}()
	switch err := f.sides[of].Relay.ConfirmEnd(ctx); {
	case err == nil:
		f.mu.Lock()
		defer f.mu.Unlock()
		f.sides[of].over = true
		f.wakeUp()
		if other := &f.sides[1-of]; !other.sinks {
			_ = other.Stream.SetReadDeadline(time.Now())
		}
	case ctx.Err() == nil:
		f.breakOff(brokenBy(of, err), fmt.Errorf("end of %s: %w", f.sides[of].name, err))
	}
}

// carry copies what was read ahead from side d and then that side to the other, until it
// ends (nil, nil) or one of them fails.
func (f *flow) carry(d int) (readErr, writeErr error) {
	src := &f.sides[d]
	if len(src.ReadAhead) > 0 {
		f.await(d, len(src.ReadAhead))
		if err := f.write(d, src.ReadAhead); err != nil {
			return nil, err
		}
		src.ReadAhead = nil
	}
	for from := newSource(src.Stream); ; {
		buf, n, err := from.next(f.most(d))
		if n > 0 {
			f.await(d, n)
			err := f.write(d, buf[:n])
			buffers.put(buf)
			if err != nil {
				return nil, err
			}
		}
		if errors.Is(err, io.EOF) {
			return src.cut(), nil
		}
		if err != nil {
			return err, nil
		}
	}
}

// write writes what direction d has read.
func (f *flow) write(d int, b []byte) error {
	n, err := f.sides[1-d].Stream.Write(b)
	f.sides[d].moved.Add(int64(n))
	if moved := movedBy(f.Traffic, d); moved != nil {
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
	f.wakeUp()
	relays := f.relays()
	if len(relays) == 0 {
		f.tear()
		return
	}
	go func() {
		var aborts sync.WaitGroup
		for _, s := range relays {
			aborts.Go(func() { s.Relay.Abort(err.Error()) })
		}
		aborts.Wait()
		f.tear()
	}()
}

// relays are the sides that have one.
func (f *flow) relays() (sides []*side) {
	for i := range f.sides {
		if s := &f.sides[i]; s.Relay != nil {
			sides = append(sides, s)
		}
	}
	return sides
}

func (f *flow) tear() {
	bare.Reset(f.Upstream.Stream)
	bare.Reset(f.Client.Stream)
	close(f.torn)
}

// finish closes both connections after both directions have ended.
func (f *flow) finish() {
	for d := range f.sides {
		s := &f.sides[d]
		if s.Relay == nil || f.isBroken() {
			continue
		}
		if err := s.Relay.ConfirmEnd(context.Background()); err != nil {
			f.breakOff(brokenBy(d, err), fmt.Errorf("end of %s: %w", s.name, err))
		}
	}
	if f.close() {
		for _, c := range []net.Conn{f.Upstream.Stream, f.Client.Stream} {
			// Until now closing c was a reset: the system closes what a killed
			// process leaves, and half a stream must not look like a whole one.
			linger(c, -1)
			_ = c.Close() // the descriptor is gone, whatever it returns
		}
	} else {
		<-f.torn
	}
	for _, s := range f.relays() {
		s.Relay.Ended()
	}
}

// close settles that the end is clean, unless the tunnel was broken off.
func (f *flow) close() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = !f.broken
	return f.closed
}

func (f *flow) isOver(side int) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.sides[side].over
}

func (f *flow) isBroken() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.broken
}

func (f *flow) checkTimeouts(now time.Time) {
	age, half := now.Sub(f.start), f.half.Load()
	f.inspectPauses(age)
	active := time.Duration(f.active.Load())
	quiet := age - active
	if f.backlog.shrinks(active, quiet, f.Timeouts.patience(half), f.held) {
		// If a byte has moved since, that was no earlier than this.
		f.active.CompareAndSwap(int64(active), int64(age))
		quiet = 0
	}
	if reason, err := f.Timeouts.expired(age, quiet, half); err != nil {
		f.breakOff(reason, err)
	}
	for d := range f.sides {
		if half && f.sides[d].gone() {
			f.breakOff(brokenBy(d, syscall.ECONNRESET), fmt.Errorf("read from %s: %w", f.sides[d].name, syscall.ECONNRESET))
		}
	}
}

// checkLines breaks the tunnel off where a side's line is dead.
func (f *flow) checkLines(c *lineCheck, now time.Time) {
	f.ticks++
	if !c.due(f.ticks, 0) {
		return
	}
	for side, conn := range [2]net.Conn{f.Client.Stream, f.Upstream.Stream} {
		if c.deadConn(&f.lines[side], conn, now.Sub(f.start)) {
			f.breakOff(c.ended(side))
			return
		}
	}
}

// held is how many bytes the connections hold for their peers.
func (f *flow) held() int { return heldBy(f.Client.Stream) + heldBy(f.Upstream.Stream) }
