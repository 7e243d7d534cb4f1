package serve

import (
	"fmt"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/tunneld/tunneld/internal/sockopt"
)

// lines is the slow clock that looks for dead lines. Both the sockets that the
// plugin dials and those that relays name are looked at: of a relay whose line is
// dead the daemon is told so, and whatever else uses the socket, such as a pool,
// finds it reset.
type lines struct {
	limit, every time.Duration
	acks         func(fd uintptr) (sockopt.Acks, bool)
	start        time.Time

	mu      sync.Mutex
	sockets []watched
	most    int         // of sockets, before the closed ones are dropped
	timer   *time.Timer // nil while there is nothing to look at
	stopped bool
}

// watched is a socket whose owner closes it when it likes.
type watched struct {
	raw    syscall.RawConn
	remote string
	line   sockopt.Line
}

// leastSweep is how many sockets are kept at least before one looks for closed
// ones among them.
const leastSweep = 64

// DeadLineError says that a tunnel's line is dead.
type DeadLineError struct{ Limit time.Duration }

func (e DeadLineError) Error() string {
	return fmt.Sprintf("the far end: no acknowledgement for %s of what was sent: the line is dead", e.Limit)
}

// dead says whether the socket's line is; open is false once it is closed.
func (l *lines) dead(w *watched) (dead, open bool) {
	err := w.raw.Control(func(fd uintptr) {
		if a, ok := l.acks(fd); ok {
			dead = w.line.Dead(a, time.Since(l.start), l.limit)
		}
	})
	return dead, err == nil
}

// watch looks at a socket until it is closed. remote is for the log.
func (s *Server) watch(remote string, raw syscall.RawConn) {
	l := &s.lines
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.sockets) >= l.most {
		l.sockets = slices.DeleteFunc(l.sockets, func(w watched) bool { return w.raw.Control(func(uintptr) {}) != nil })
		l.most = max(leastSweep, 2*len(l.sockets))
	}
	l.sockets = append(l.sockets, watched{raw: raw, remote: remote})
	s.arm()
}

// watchRelays has the relays looked at. It comes after know.
func (s *Server) watchRelays() {
	s.lines.mu.Lock()
	defer s.lines.mu.Unlock()
	s.arm()
}

// arm is called with lines.mu held.
func (s *Server) arm() {
	if s.lines.timer == nil && !s.lines.stopped {
		s.lines.timer = time.AfterFunc(s.lines.every, s.checkLines)
	}
}

func (l *lines) stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stopped = true
	if l.timer != nil {
		l.timer.Stop()
	}
}

// checkLines ends the relays whose line is dead, and resets the sockets.
func (s *Server) checkLines() {
	l := &s.lines
	// Held throughout: what is to be looked at from now on arms the clock anew.
	l.mu.Lock()
	defer l.mu.Unlock()
	s.mu.Lock()
	relays := s.openRelays()
	s.mu.Unlock()
	// The relays come first: what its socket's reset does to a stream says less.
	for _, r := range relays {
		if r.socket == nil {
			continue
		}
		if dead, _ := l.dead(r.socket); dead && r.claim() {
			go r.finish(DeadLineError{l.limit}, tellDaemon) // Stream.Abort may take its time
		}
	}
	kept := l.sockets[:0]
	for _, w := range l.sockets {
		dead, open := l.dead(&w)
		switch {
		case dead:
			s.log.Warn("a connection was reset: its line is dead", "remote", w.remote, "err", DeadLineError{l.limit})
			_ = w.raw.Control(func(fd uintptr) { _ = sockopt.Disconnect(fd) }) // an error: it was closed just now
		case open:
			kept = append(kept, w)
		}
	}
	clear(l.sockets[len(kept):])
	l.sockets = kept
	l.timer = nil
	if len(kept) > 0 || len(relays) > 0 {
		s.arm()
	}
}
