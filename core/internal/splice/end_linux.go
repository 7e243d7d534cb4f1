package splice

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/tunneld/tunneld/core/internal/tunnel"
)

// sideError is what broke a tunnel. Nobody may want to read it, so it is put into
// words only for who does.
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
	if side == client {
		w.breakOff(s, tunnel.CloseClientReset, sideError{what + " client", errno})
		return
	}
	err := sideError{what + " upstream", errno}
	if s.relay != nil && errno != errBrokenOff {
		w.endUp(s, err)
		return
	}
	w.breakOff(s, tunnel.CloseUpstreamReset, err)
}

// endUp asks the plugin why it takes no more bytes. What the client sends has
// nowhere to go.
func (w *worker) endUp(s *slot, cause error) {
	dir := &s.dirs[client]
	w.drop(dir)
	if dir.state != dirDone {
		dir.state = dirSink
		s.readyIn[client] = true
		w.later(s)
	}
	w.ask(s, cause)
}

// notice looks for a side that died while there was nothing to read from it and
// nothing to write to it.
func (w *worker) notice(s *slot) {
	for side := range s.gone {
		dir := &s.dirs[side]
		if !s.gone[side] || dir.state == dirOpen && !dir.holds() {
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

// drained passes the end of a direction on, after its last byte.
func (w *worker) drained(s *slot, d int) {
	dir := &s.dirs[d]
	w.unpipe(dir)
	if s.ending == nil {
		s.ending = &eofs[d]
	}
	if s.relay == nil {
		w.shut(s, d)
		return
	}
	// The plugin is told, or asked, on another goroutine: it may be slow.
	dir.state = dirTelling
	relay, key := s.relay, s.key(d)
	if d == client {
		w.helpers.Go(func() { w.submit(message{kind: msgAnnounced, key: key, err: relay.AnnounceEOF()}) })
	} else {
		w.helpers.Go(func() { w.submit(message{kind: msgConfirmed, key: key, err: relay.ConfirmEOF()}) })
	}
}

// announced goes on after the plugin was told that the client has ended.
func (w *worker) announced(s *slot, err error) {
	if s.broken || s.dirs[client].state != dirTelling {
		return // the plugin had ended the tunnel before
	}
	if err != nil {
		w.endUp(s, fmt.Errorf("end upstream: %w", err))
		return
	}
	w.shut(s, client)
}

// confirmed goes on after the plugin said how its direction ended.
func (w *worker) confirmed(s *slot, err error) {
	if s.broken {
		return
	}
	if err != nil {
		w.breakOff(s, upstreamReason(err), fmt.Errorf("read from upstream: %w", err))
		return
	}
	w.shut(s, upstream)
}

// shut ends the sink of a direction whose source has ended.
func (w *worker) shut(s *slot, d int) {
	if err := unix.Shutdown(int(s.fds[1-d]), unix.SHUT_WR); err != nil {
		errno, _ := err.(syscall.Errno)
		w.failed(s, 1-d, "end", errno)
		return
	}
	s.dirs[d].state = dirDone
	s.active = w.now
	w.finish(s)
}

// finish closes the tunnel once both directions are over.
func (w *worker) finish(s *slot) {
	if s.broken || s.dirs[upstream].state != dirDone {
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
	if s.relay == nil || s.over {
		w.free(s, closeClean)
		return
	}
	w.ask(s, nil)
}

// ask asks the plugin, on another goroutine, how the tunnel ended. cause is what
// made it necessary, or nil.
func (w *worker) ask(s *slot, cause error) {
	if s.asked {
		return
	}
	s.asked = true
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

// endConfirmed goes on after the plugin said how the tunnel ended. After a clean
// end what the client may still send has nowhere to go, as with a server that
// closes its connection; what it has yet to receive is delivered.
func (w *worker) endConfirmed(s *slot, err error) {
	if s.broken {
		return
	}
	if err != nil {
		w.breakOff(s, upstreamReason(err), fmt.Errorf("end of upstream: %w", err))
		return
	}
	s.over = true
	if dir := &s.dirs[client]; dir.state != dirDone {
		w.drop(dir)
		dir.state = dirSink
		s.readyIn[client] = true
	}
	if w.turn(s); s.live {
		w.finish(s)
	}
}

// breakOff ends the tunnel at once and tells both sides that it was not a clean
// end. A relay's plugin is told first, on another goroutine.
func (w *worker) breakOff(s *slot, reason tunnel.CloseReason, err error) {
	if s.broken {
		return
	}
	s.broken, s.ending = true, &ending{reason, err}
	if s.stuck() {
		s.ending = s.heldUp()
	}
	if s.relay == nil {
		w.free(s, closeReset)
		return
	}
	relay, key, text := s.relay, s.key(0), s.ending.err.Error()
	w.helpers.Go(func() {
		relay.Abort(text)
		w.submit(message{kind: msgAborted, key: key})
	})
}

// free closes the sockets and ends the use of the slot.
func (w *worker) free(s *slot, shut func(fd int32)) {
	if s.stuck() && !s.broken {
		// What looks like a clean end is the watch's doing.
		s.ending, shut = s.heldUp(), closeReset
	}
	s.fold()
	result := Result{Reason: s.ending.reason, Err: s.ending.err, Up: s.dirs[client].moved, Down: s.dirs[upstream].moved}
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
