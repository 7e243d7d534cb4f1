package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// patience bounds each step of a tunnel: what takes longer hangs.
const patience = 30 * time.Second

// load is the tunnels: some that last, and new ones all the time.
type load struct {
	s   settings
	d   *daemon
	far *far
	r   *report
	ids atomic.Uint64

	work      sync.WaitGroup
	up        atomic.Int64 // lasting tunnels that are established
	exchanges atomic.Int64
	paused    atomic.Bool   // no new connections
	leaving   chan struct{} // closed: end, cleanly

	mu    sync.Mutex
	away  map[string][]absence // of plugins, by path
	round context.CancelFunc
}

// absence is a time in which a plugin's process was gone.
type absence struct{ from, to time.Time } // a zero to: still

func newLoad(s settings, d *daemon, far *far, r *report) *load {
	l := &load{s: s, d: d, far: far, r: r, away: map[string][]absence{}}
	l.ids.Store(s.seed >> 16 << 16)
	return l
}

// begin establishes the lasting tunnels and opens new ones.
func (l *load) begin(ctx context.Context) {
	ctx, l.round = context.WithCancel(ctx)
	l.leaving = make(chan struct{})
	l.paused.Store(false)
	for i := range l.s.established {
		l.work.Go(func() { l.last(ctx, paths[i%len(paths)], i%10 == 9) })
	}
	l.work.Go(func() { l.arrive(ctx) })
}

// onNewDaemon starts the daemon and begins. It returns what the daemon held before.
func (l *load) onNewDaemon(ctx context.Context) (usage, error) {
	if err := l.d.start(ctx); err != nil {
		return usage{}, err
	}
	before, err := l.d.usage(ctx)
	if err != nil {
		return usage{}, err
	}
	l.begin(ctx)
	return before, l.settled(ctx)
}

// arrive opens new connections at the rate, each for a few exchanges.
func (l *load) arrive(ctx context.Context) {
	tick := time.NewTicker(time.Second / time.Duration(l.s.rate))
	defer tick.Stop()
	for i := 0; ; i++ {
		select {
		case <-tick.C:
		case <-l.leaving:
			return
		case <-ctx.Done():
			return
		}
		if l.paused.Load() {
			continue
		}
		path := paths[i%len(paths)]
		l.work.Go(func() { l.visit(path) })
	}
}

// hold stops new connections.
func (l *load) hold() { l.paused.Store(true) }

// finish lets every tunnel end.
func (l *load) finish() {
	close(l.leaving)
	l.work.Wait()
}

// quiet ends all tunnels and waits until the daemon has none.
func (l *load) quiet(ctx context.Context) error {
	l.finish()
	return until(ctx, patience, "the end of all tunnels", func() (bool, error) {
		s, err := l.d.status(ctx)
		return err == nil && s.Pump.Tunnels == 0, err
	})
}

// end ends what is left of a round.
func (l *load) end() {
	select {
	case <-l.leaving:
	default:
		close(l.leaving)
	}
	l.round()
	l.work.Wait()
}

func (l *load) open() int { return int(l.up.Load()) }

// settled waits until the lasting tunnels are established.
func (l *load) settled(ctx context.Context) error {
	return until(ctx, patience, "the established tunnels", func() (bool, error) { return l.open() >= l.s.established, nil })
}

// exchanged waits until the tunnels have carried more messages than there are of
// them.
func (l *load) exchanged(ctx context.Context) error {
	goal := l.exchanges.Load() + int64(2*l.open())
	return until(ctx, patience, "messages through the tunnels", func() (bool, error) { return l.exchanges.Load() >= goal, nil })
}

// leave says that a plugin's process goes; what it returns, that it is back.
func (l *load) leave(path string) (back func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := len(l.away[path])
	l.away[path] = append(l.away[path], absence{from: time.Now()})
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.away[path][n].to = time.Now()
	}
}

// excused says whether the plugin of a path was away between two times.
func (l *load) excused(path string, from, to time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, a := range l.away[path] {
		if to.After(a.from) && (a.to.IsZero() || from.Before(a.to)) {
			return true
		}
	}
	return false
}

// last keeps one tunnel established, and makes it anew where that may be
// necessary.
func (l *load) last(ctx context.Context, path string, bulk bool) {
	for {
		select {
		case <-l.leaving:
			return
		case <-ctx.Done():
			return
		default:
		}
		t := l.dial(path)
		if t == nil {
			if !l.rest(ctx, 100*time.Millisecond) {
				return
			}
			continue
		}
		l.up.Add(1)
		for err := error(nil); err == nil && l.rest(ctx, time.Duration(rand.Int64N(int64(l.s.pause)))); {
			n := 1 + rand.IntN(1024)
			if bulk {
				n = 128<<10 + rand.IntN(1<<20)
			}
			err = t.exchange(n)
			t.failure = err
			l.exchanges.Add(1)
		}
		l.up.Add(-1)
		t.end()
	}
}

// rest waits, and says whether to go on.
func (l *load) rest(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-l.leaving:
		return false
	case <-ctx.Done():
		return false
	}
}

// visit is a short tunnel.
func (l *load) visit(path string) {
	t := l.dial(path)
	if t == nil {
		return
	}
	for range 1 + rand.IntN(4) {
		n := 1 + rand.IntN(4096)
		if rand.IntN(20) == 0 {
			n = 1 << 20
		}
		if t.failure = t.exchange(n); t.failure != nil {
			break
		}
	}
	t.end()
}

// tunnel is one connection of a client.
type tunnel struct {
	l       *load
	path    string
	id      uint64
	conn    *net.TCPConn
	born    time.Time
	out, in *stream
	said    bool // the client's end was sent
	failure error
}

// dial establishes a tunnel: the far end has answered. It returns nil where that
// failed, which is noted.
func (l *load) dial(path string) *tunnel {
	t := &tunnel{l: l, path: path, id: l.ids.Add(1), born: time.Now()}
	t.out, t.in = newStream(t.id, 0), newStream(t.id, 1)
	c, err := net.DialTimeout("tcp", l.d.addresses[path], patience)
	if err != nil {
		if errors.Is(err, syscall.ECONNRESET) && l.excused(path, t.born, time.Now()) {
			l.r.missed()
			return nil
		}
		l.r.breach("tunnel %x on %s: a connection was refused: %v", t.id, path, err)
		return nil
	}
	t.conn = c.(*net.TCPConn)
	_ = t.conn.SetDeadline(time.Now().Add(patience))
	head := binary.BigEndian.AppendUint64(nil, t.id)
	if _, err = t.conn.Write(head); err == nil {
		_, err = io.ReadFull(t.conn, head)
	}
	if err == nil {
		l.r.dialed(time.Since(t.born))
		return t
	}
	_ = t.conn.Close()
	if l.excused(path, t.born, time.Now()) && !errors.Is(err, io.EOF) {
		l.r.missed()
		return nil
	}
	l.r.breach("tunnel %x on %s from %s: not established: %v", t.id, path, t.conn.LocalAddr(), err)
	return nil
}

// exchange sends a message of n bytes and reads its answer.
func (t *tunnel) exchange(n int) error {
	_ = t.conn.SetDeadline(time.Now().Add(patience))
	if _, err := t.conn.Write(binary.BigEndian.AppendUint32(nil, uint32(n))); err != nil {
		return err
	}
	sent := make(chan error, 1)
	go func() { sent <- t.out.write(t.conn, n) }()
	err := t.in.read(t.conn, n)
	if err != nil {
		_ = t.conn.SetDeadline(time.Unix(1, 0)) // ends the write
	}
	return errors.Join(err, <-sent)
}

// end ends the tunnel, cleanly unless it has failed, and compares both ends.
func (t *tunnel) end() {
	defer t.conn.Close()
	if t.failure == nil {
		_ = t.conn.SetDeadline(time.Now().Add(patience))
		t.failure = t.sayEnd()
	}
	seen, known := t.l.far.end(t.id, patience)
	r := t.l.r
	// Of a reset the system tells one call; another one meanwhile reads an end of
	// file.
	reset := errors.Is(t.failure, syscall.ECONNRESET) || errors.Is(t.failure, syscall.EPIPE)
	short := !reset && (errors.Is(t.failure, io.EOF) || errors.Is(t.failure, io.ErrUnexpectedEOF))
	story := func(what string) {
		r.breach("tunnel %x on %s from %s, %s old, after %d bytes up and %d down: %s; the client saw: %v; the far end saw: %v (%t)",
			t.id, t.path, t.conn.LocalAddr(), time.Since(t.born).Round(time.Millisecond), t.out.count, t.in.count, what, t.failure, seen, known)
	}
	var wrong *wrongByte
	switch {
	case errors.As(t.failure, &wrong), errors.As(seen, &wrong):
		story("bytes were lost or out of order")
	case t.failure == nil && known && seen == nil:
		r.clean(t.path, t.in.count+t.out.count)
	case t.path != "relay" || !t.l.excused(t.path, t.born, time.Now()):
		story("lost")
	case t.failure == nil || short:
		story("broken off, but the client saw a clean end")
	case known && seen == nil && t.said:
		// The far end had ended before; the client lacks its last bytes, and sees an error.
		r.died()
	case !known || seen == nil || errors.Is(seen, errShort):
		story("broken off, but the far end saw a clean end")
	default:
		r.died()
	}
}

func (t *tunnel) sayEnd() error {
	if _, err := t.conn.Write([]byte{0, 0, 0, 0}); err != nil {
		return err
	}
	if err := t.conn.CloseWrite(); err != nil {
		return err
	}
	t.said = true
	if n, err := t.conn.Read(make([]byte, 1)); n > 0 || !errors.Is(err, io.EOF) {
		return fmt.Errorf("after the end: %d bytes, %w", n, err)
	}
	return nil
}

func (r *report) missed() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed0++
}

func (r *report) died() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.allowed++
}

func (r *report) dialed(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dials = append(r.dials, d)
}

func (r *report) clean(path string, bytes int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended[path]++
	r.bytes += bytes
}
