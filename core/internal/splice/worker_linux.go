package splice

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tunneld/tunneld/core/internal/tunnel"
)

// worker owns tunnels and the epoll that tells of their sockets. Only its own
// goroutine touches them: everyone else sends it a message.
//
// It waits in Go's poller, which its epoll is nested in. Waiting in epoll_wait
// would keep a thread for it, and Go's scheduler from the processor, until sysmon
// takes that back.
type worker struct {
	epfd    int
	epoll   *os.File // of epfd
	raw     syscall.RawConn
	tunnels *counter
	lines   *lineCheck
	stopped chan struct{}
	// helpers tell and ask plugins, and report tunnels that have ended: all that
	// may take a while.
	helpers sync.WaitGroup

	mu     sync.Mutex
	queue  []message
	sealed bool        // it takes no more messages
	asleep atomic.Bool // it waits, and a message must wake it
	queued atomic.Bool // queue is not empty

	waiting atomic.Int64 // pauses

	// For the watch; see sight.
	at    atomic.Pointer[handed]
	visit atomic.Uint32

	// What follows is the worker's own.
	began  time.Time
	now    time.Duration // since began, read once a turn
	rung   bool          // a message has ended a wait: the deadline is in the past
	alarm  time.Duration // the deadline otherwise; 0: none
	pauses pauses
	ticks  uint32
	slots  slab
	pipes  pipes
	buf    []byte
	ready  []*slot // have more to do than a turn allows
	batch  []*slot // ready's memory, in turns
	events []unix.EpollEvent
	seen   int // of events, by the last look
	closed bool
}

const eventsPerTurn = 256

type messageKind uint8

const (
	// msgJoin brings a new tunnel.
	msgJoin messageKind = iota
	// msgTick comes once in a tick.
	msgTick
	// msgMeasure comes when rates have changed.
	msgMeasure
	// msgKill breaks every tunnel off.
	msgKill
	// msgClose ends the worker; it has no tunnels then.
	msgClose
	// msgAnnounced: the plugin knows that the client has ended.
	msgAnnounced
	// msgConfirmed: the plugin has, or has not (err), ended its direction.
	msgConfirmed
	// msgEnded: the plugin has, or has not (err), ended the tunnel.
	msgEnded
	// msgAborted: the plugin knows that the tunnel is broken off.
	msgAborted
)

type message struct {
	kind messageKind
	join *Tunnel
	flip uint8    // of join, as what follows: see slot
	fds  [2]int32 // its client's and its upstream's as the worker takes them
	from *origin  // where a plugin handed the upstream over
	key  slotKey
	err  error
}

func newWorker(tunnels *counter, mostPipes int, lines *lineCheck, began time.Time) (*worker, error) {
	epfd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if err := unix.SetNonblock(epfd, true); err != nil {
		return nil, errors.Join(os.NewSyscallError("fcntl", err), unix.Close(epfd))
	}
	epoll := os.NewFile(uintptr(epfd), "epoll")
	raw, err := epoll.SyscallConn()
	if err == nil {
		err = epoll.SetReadDeadline(time.Time{}) // an error: it is not in the poller
	}
	if err != nil {
		return nil, errors.Join(err, epoll.Close())
	}
	w := &worker{
		epfd:    epfd,
		epoll:   epoll,
		raw:     raw,
		tunnels: tunnels,
		lines:   lines,
		stopped: make(chan struct{}),
		began:   began,
		buf:     make([]byte, smallRead),
		events:  make([]unix.EpollEvent, eventsPerTurn),
		pipes:   pipes{most: mostPipes},
	}
	go w.run()
	return w, nil
}

// submit hands m to the worker and returns at once. It does nothing once the
// worker is closed. What ends the worker's wait is a deadline in the past. It is
// set under the lock, which the worker takes for the message before it waits again.
func (w *worker) submit(m message) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.sealed {
		return
	}
	w.queue = append(w.queue, m)
	w.queued.Store(true)
	if w.asleep.CompareAndSwap(true, false) {
		w.deadline(past)
	}
}

var past = time.Unix(1, 0)

// deadline ends a wait at t; the zero time: never.
func (w *worker) deadline(t time.Time) {
	_ = w.epoll.SetReadDeadline(t) // it is open as long as the worker is
}

func (w *worker) close() error {
	w.submit(message{kind: msgClose})
	<-w.stopped
	w.helpers.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sealed = true
	w.pipes.closeAll()
	return w.epoll.Close()
}

func (w *worker) run() {
	defer close(w.stopped)
	for !w.closed {
		n := w.wait()
		w.now = time.Since(w.began)
		for i := range w.events[:n] {
			w.event(&w.events[i])
		}
		w.messages()
		w.resume()
		w.runReady()
	}
}

// wait returns the number of events. It waits for one only where there is nothing
// else to do.
func (w *worker) wait() int {
	if len(w.ready) > 0 || w.queued.Load() {
		w.look(0)
		return w.seen
	}
	if next := w.pauses.next(); w.rung || next != w.alarm {
		w.alarm = next
		if next > 0 {
			w.deadline(w.began.Add(next))
		} else {
			w.deadline(time.Time{})
		}
	}
	w.asleep.Store(true)
	w.seen = 0
	var over error
	if !w.queued.Load() {
		over = w.raw.Read(w.look) // an error: a message has come, or a pause is over
	}
	if w.rung = !w.asleep.Swap(false); over != nil && !w.rung {
		// The deadline may have been over before it looked.
		w.look(0)
	}
	return w.seen
}

// look asks for events and says whether there are any.
func (w *worker) look(uintptr) bool {
	w.seen = epollPoll(w.epfd, w.events)
	return w.seen > 0
}

func (w *worker) event(e *unix.EpollEvent) {
	key := getKey(e)
	s, side := w.slots.find(slotKey(key))
	if s == nil {
		return // closed in this very batch
	}
	s.note(side, e.Events)
	h := w.enter(s)
	w.turn(s)
	w.leave(s, h)
}

func (w *worker) messages() {
	if !w.queued.Load() {
		return
	}
	w.mu.Lock()
	batch := w.queue
	w.queue = nil
	w.queued.Store(false)
	w.mu.Unlock()
	for _, m := range batch {
		w.message(m)
	}
}

func (w *worker) message(m message) {
	switch m.kind {
	case msgJoin:
		w.join(m)
		return
	case msgTick:
		w.tick()
		return
	case msgMeasure:
		w.slots.each(w.measure)
		w.slots.each(w.later)
		return
	case msgKill:
		w.slots.each(func(s *slot) { w.breakOff(s, tunnel.CloseKilled, errKilled) })
		return
	case msgClose:
		w.closed = true
		return
	}
	s, _ := w.slots.find(m.key)
	if s == nil {
		return
	}
	h := w.enter(s)
	defer w.leave(s, h)
	switch {
	case m.kind == msgAborted:
		w.tunnelEvent(s, evAborted, ending{})
	case !s.moves(): // it waits for msgAborted alone
	case m.kind == msgAnnounced:
		w.announced(s, m.err)
	case m.kind == msgConfirmed:
		w.confirmed(s, m.err)
	case m.kind == msgEnded:
		w.endConfirmed(s, m.err)
	}
}

// join registers a new tunnel. Its first events say what its sockets are ready
// for; that they take bytes is taken for granted.
func (w *worker) join(m message) {
	s, t := w.slots.take(), m.join
	s.flip, s.fds = m.flip, m.fds
	ends := [2]*tunnel.End{&t.Client, &t.Upstream}
	s.relay = ends[s.side(upstream)].Relay
	s.state = tunnelDirect
	if s.relay != nil {
		s.state = tunnelRelay
	}
	if m.from != nil {
		s.handed = &handed{fd: s.fds[upstream], from: m.from}
	}
	s.timeouts, s.traffic, s.done = t.Timeouts, t.Traffic, t.Done
	if t.Rates != nil {
		s.meter = t.Rates.measure(nil, w.now)
	}
	s.start, s.active = w.now, w.now
	s.readyTo = [2]bool{true, true}
	for side, end := range ends {
		if len(end.ReadAhead) > 0 {
			s.dirs[s.side(side)].rest = &rest{b: end.ReadAhead}
			if a := s.allowance(s.side(side)); a != nil {
				a.take(len(end.ReadAhead), w.now) // what follows waits for it
			}
		}
	}
	for side, fd := range s.fds {
		event := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLPRI | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET&(1<<32-1)}
		setKey(&event, uint64(s.key(side)))
		if err := unix.EpollCtl(w.epfd, unix.EPOLL_CTL_ADD, int(fd), &event); err != nil {
			w.breakOff(s, tunnel.CloseKilled, fmt.Errorf("watch socket: %w", os.NewSyscallError("epoll_ctl", err)))
			return
		}
	}
}

func (w *worker) runReady() {
	batch := w.ready
	w.ready = w.batch[:0]
	for _, s := range batch {
		if !s.queued {
			continue // freed since
		}
		s.queued = false
		h := w.enter(s)
		w.turn(s)
		w.leave(s, h)
	}
	w.batch = batch
}

// later lets s go on in the next turn, after the others.
func (w *worker) later(s *slot) {
	if !s.queued {
		s.queued = true
		w.ready = append(w.ready, s)
	}
}

// tick tells what has moved, and breaks off what has exceeded a timeout.
func (w *worker) tick() {
	w.ticks++
	w.slots.each(func(s *slot) {
		s.fold()
		if !s.moves() {
			return
		}
		h := w.enter(s)
		w.inspect(s)
		w.leave(s, h)
	})
}

func (w *worker) inspect(s *slot) {
	if w.finish(s); s.state == tunnelFree {
		return
	}
	if s.paused(client) || s.paused(upstream) {
		s.active = w.now // it is not its peers that are silent
	}
	half := s.dirs[0].state != dirOpen || s.dirs[1].state != dirOpen
	if s.backlog.shrinks(s.active, w.now-s.active, s.timeouts.patience(half), s.held) {
		s.active = w.now
	}
	if reason, err := s.timeouts.expired(w.now-s.start, w.now-s.active, half); err != nil {
		w.breakOff(s, reason, err)
	} else if w.lines.due(w.ticks, s.index) {
		w.checkLines(s)
	}
}

// checkLines breaks the tunnel off where a side's line is dead. A relay's own
// socket has no line.
func (w *worker) checkLines(s *slot) {
	for side := range s.lines {
		if side == upstream && s.relay != nil {
			continue
		}
		if w.lines.dead(&s.lines[side], uintptr(s.fds[side]), w.now) {
			reason, err := w.lines.ended(s.side(side))
			w.breakOff(s, reason, err)
			return
		}
	}
}

func setKey(e *unix.EpollEvent, key uint64) { e.Fd, e.Pad = int32(uint32(key)), int32(key>>32) }

func getKey(e *unix.EpollEvent) uint64 { return uint64(uint32(e.Fd)) | uint64(uint32(e.Pad))<<32 }

// again says that a call found nothing to do, interrupted that it should be
// repeated.
func again(errno syscall.Errno) bool { return errno == syscall.EAGAIN }

func interrupted(errno syscall.Errno) bool { return errno == syscall.EINTR }
