package splice

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/tunneld/tunneld/core/internal/tunnel"
)

// sideError is what broke a tunnel. It is formatted only when somebody reads it,
// which is rare.
type sideError struct {
	what  string
	errno syscall.Errno
}

func (e sideError) Error() string { return e.what + ": " + e.errno.Error() }

func (e sideError) Unwrap() error { return e.errno }

var errRelayClosed = errors.New("the plugin closed the relay")

// failed breaks the tunnel off after a side took no more bytes. A relay whose
// plugin has ended the tunnel does so too, without being an error.
func (w *worker) failed(s *slot, side int, what string, errno syscall.Errno) {
	err := sideError{what + " " + s.name(side), errno}
	if side == upstream && s.relay != nil && errno != errBrokenOff {
		w.endUp(s, err)
		return
	}
	w.breakOff(s, resetReasons[s.side(side)], err)
}

// endUp asks the plugin why it takes no more bytes. What the client sends has
// nowhere to go.
func (w *worker) endUp(s *slot, cause error) {
	w.directionEvent(s, client, evUnwanted)
	if s.dirs[client].state == dirSink {
		w.later(s)
	}
	w.ask(s, cause)
}

// notice looks for a side that died while there was nothing to read from it and
// nothing to write to it.
func (w *worker) notice(s *slot) {
	for side := range s.gone {
		dir := &s.dirs[side]
		if !s.gone[side] || dir.state == dirOpen && !dir.holds() && !s.paused(side) {
			continue // a read will tell, after what there is to read
		}
		s.gone[side] = false
		errno, err := unix.GetsockoptInt(int(s.fds[side]), unix.SOL_SOCKET, unix.SO_ERROR)
		if err == nil && errno != 0 {
			w.failed(s, side, "connection with", syscall.Errno(errno))
			return
		}
		if side == upstream && s.relay != nil && s.dirs[client].state == dirOpen {
			w.ask(s, errRelayClosed)
			return
		}
	}
}

// drained goes on after the last byte of a direction was written.
func (w *worker) drained(s *slot, d int) {
	w.unpipe(&s.dirs[d])
	if s.ending == nil {
		s.ending = &eofs[s.side(d)]
	}
	w.directionEvent(s, d, evFlushed)
}

// passEnd passes the end of a direction on. A plugin learns of it, or is asked,
// first, on another goroutine: it may be slow.
func (w *worker) passEnd(s *slot, d int) {
	if s.relay == nil {
		w.directionEvent(s, d, evAnswered)
		return
	}
	relay, key := s.relay, s.key(d)
	if d == client {
		w.helpers.Go(func() { w.submit(message{kind: msgAnnounced, key: key, err: relay.AnnounceEOF()}) })
	} else {
		w.helpers.Go(func() { w.submit(message{kind: msgConfirmed, key: key, err: relay.ConfirmEOF()}) })
	}
}

// announced goes on after the plugin has learned that the client has ended.
func (w *worker) announced(s *slot, err error) {
	// Where it had ended the tunnel before, it takes no announcement.
	if err != nil && s.dirs[client].state == dirPassing {
		w.endUp(s, fmt.Errorf("end %s: %w", s.name(upstream), err))
		return
	}
	w.directionEvent(s, client, evAnswered)
}

// confirmed goes on after the plugin said how its direction ended.
func (w *worker) confirmed(s *slot, err error) {
	if err != nil {
		w.breakOff(s, brokenBy(s.side(upstream), err), fmt.Errorf("read from %s: %w", s.name(upstream), err))
		return
	}
	w.directionEvent(s, upstream, evAnswered)
}

// shut ends the sink of a direction whose source has ended.
func (w *worker) shut(s *slot, d int) {
	if err := unix.Shutdown(int(s.fds[1-d]), unix.SHUT_WR); err != nil {
		errno, _ := err.(syscall.Errno)
		w.failed(s, 1-d, "end", errno)
		return
	}
	s.active = w.now
	w.directionEvent(s, d, evShut)
}

// finish looks whether both directions are over.
func (w *worker) finish(s *slot) {
	if s.dirs[upstream].state != dirDone {
		return
	}
	switch s.dirs[client].state {
	case dirDone:
	case dirSink:
		if held(s.fds[client]) > 0 {
			return // the next tick looks again
		}
	default:
		return
	}
	w.tunnelEvent(s, evBoth, ending{})
}

// ask has the plugin say how the tunnel ended. cause is what made that necessary.
func (w *worker) ask(s *slot, cause error) { w.tunnelEvent(s, evAsk, ending{err: cause}) }

// askPlugin asks the plugin, on another goroutine, how the tunnel ended. cause is what
// made that necessary, or nil: both directions are over.
func (w *worker) askPlugin(s *slot, cause error) {
	relay, key := s.relay, s.key(0)
	w.helpers.Go(func() {
		ctx, cancel := context.Background(), context.CancelFunc(func() {})
		if cause != nil {
			// The plugin has closed its end, and says so before it does.
			ctx, cancel = context.WithTimeout(ctx, wordWait)
		}
		defer cancel()
		err := relay.ConfirmEnd(ctx)
		if err != nil && cause != nil {
			err = fmt.Errorf("%w (%w)", cause, err)
		}
		w.submit(message{kind: msgEnded, key: key, err: err})
	})
}

// endConfirmed goes on after the plugin said how the tunnel ended.
func (w *worker) endConfirmed(s *slot, err error) {
	if err != nil {
		w.breakOff(s, brokenBy(s.side(upstream), err), fmt.Errorf("end of %s: %w", s.name(upstream), err))
		return
	}
	w.tunnelEvent(s, evClean, ending{})
}

// settle goes on after a clean end. What the client may still send has nowhere to go,
// as with a server that closes its connection; what it has yet to receive is
// delivered.
func (w *worker) settle(s *slot) {
	w.directionEvent(s, client, evUnwanted)
	if w.turn(s); s.state != tunnelFree {
		w.finish(s)
	}
}

// breakOff ends the tunnel at once, unless it is broken off, and both sides see that it
// was not a clean end.
func (w *worker) breakOff(s *slot, reason tunnel.CloseReason, err error) {
	w.tunnelEvent(s, evBreak, ending{reason, err})
}

// endBy says why the tunnel ends.
func (s *slot) endBy(why ending) {
	s.ending = &why
	if s.stuck() {
		s.ending = s.heldUp()
	}
}

// abort has the plugin of a relay learn, on another goroutine, that the tunnel is
// broken off, before its end of the socketpair is closed.
func (w *worker) abort(s *slot) {
	relay, key, text := s.relay, s.key(0), s.ending.err.Error()
	w.helpers.Go(func() {
		relay.Abort(text)
		w.submit(message{kind: msgAborted, key: key})
	})
}

// closeCleanly ends a tunnel whose directions are both over.
func (w *worker) closeCleanly(s *slot) {
	if s.stuck() {
		// What looks like a clean end is the watch's doing.
		s.ending = s.heldUp()
		w.free(s, closeReset)
		return
	}
	w.free(s, closeClean)
}

// free closes the sockets and ends the use of the slot.
func (w *worker) free(s *slot, shut func(fd int32)) {
	w.unmeter(s)
	s.fold()
	result := Result{Reason: s.ending.reason, Err: s.ending.err, Up: s.dirs[s.side(client)].moved, Down: s.dirs[s.side(upstream)].moved}
	for d := range s.dirs {
		w.drop(&s.dirs[d])
	}
	// Closing a socket takes it from the epoll; where somebody still holds a copy
	// its events go on, with a key that finds nothing.
	h := s.handed
	shut(s.fds[client])
	if h == nil {
		shut(s.fds[upstream])
	}
	relay, done := s.relay, s.done
	w.slots.give(s)
	// Logging and counting are not the worker's time.
	w.helpers.Go(func() {
		if h != nil {
			h.close(w.epfd, shut)
		}
		if relay != nil {
			relay.Ended()
		}
		w.tunnels.ended(done, result)
	})
}

// drop gives back what a direction holds.
func (w *worker) drop(dir *direction) {
	dir.dropRest()
	if dir.pipe != nil {
		w.pipes.put(dir.pipe)
		dir.pipe = nil
	}
}
