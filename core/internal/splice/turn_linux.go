package splice

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/tunneld/tunneld/core/internal/tunnel"
)

const (
	// budget is how many bytes a direction may move in one turn, so that one
	// fast stream does not starve the rest.
	budget = 1 << 20
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

// turn moves what can be moved in both directions.
func (w *worker) turn(s *slot) {
	if s.broken {
		return
	}
	for d := range s.dirs {
		w.pump(s, d)
		if s.joined == nil || s.broken {
			return
		}
	}
	w.notice(s)
}

// pump moves one direction until it has nothing to read, nowhere to write, or
// has had its share.
func (w *worker) pump(s *slot, d int) {
	dir := &s.dirs[d]
	for left := budget; ; {
		switch {
		case dir.state == dirDone || dir.state == dirTelling:
			return
		case len(dir.rest) > 0 || dir.held > 0:
			if !s.readyTo[1-d] || !w.flush(s, d) {
				return
			}
		case dir.state == dirEOF:
			w.drained(s, d)
			return
		case !s.readyIn[d]:
			w.unpipe(dir)
			return
		case left <= 0:
			w.later(s)
			return
		default:
			n, ok := w.fill(s, d)
			if !ok {
				return
			}
			left -= n
		}
	}
}

// fill reads from the direction's source. It returns false after the tunnel was
// broken off.
func (w *worker) fill(s *slot, d int) (int, bool) {
	dir := &s.dirs[d]
	if dir.bulk && !dir.piped {
		dir.pipe, dir.piped = w.pipes.get(w.now)
	}
	if dir.bulk && dir.piped {
		return w.fillPipe(s, d)
	}
	n, errno := rawRecv(s.fds[d], w.buf)
	switch {
	case errno == 0 && n > 0:
		dir.bulk = n == len(w.buf)
		// A short read has emptied the socket, unless a FIN came along:
		// then only a read of zero tells.
		if !dir.bulk && !s.finSeen[d] {
			s.readyIn[d] = false
		}
		return n, w.pass(s, d, w.buf[:n])
	default:
		return 0, w.filled(s, d, n, errno)
	}
}

func (w *worker) fillPipe(s *slot, d int) (int, bool) {
	dir := &s.dirs[d]
	// The pipe is empty, so that EAGAIN speaks of the socket.
	n, errno := rawSplice(s.fds[d], dir.pipe.w, dir.pipe.size)
	if errno == 0 && n > 0 {
		dir.held = n
		return n, true
	}
	dir.bulk = false
	return 0, w.filled(s, d, n, errno)
}

// filled deals with a read that brought nothing.
func (w *worker) filled(s *slot, d, n int, errno syscall.Errno) bool {
	switch {
	case errno == 0 && n == 0:
		s.dirs[d].state = dirEOF
		s.active = w.now
	case again(errno):
		s.readyIn[d] = false
	case interrupted(errno):
	case d == upstream && s.relay != nil && errno == syscall.ECONNRESET:
		// The plugin has closed a relay with bytes of ours in it. What it sent
		// has been read; whether that was all is its word to say.
		s.dirs[d].state = dirEOF
	case d == client:
		w.breakOff(s, tunnel.CloseClientReset, sideError{"read from client", errno})
		return false
	default:
		w.breakOff(s, tunnel.CloseUpstreamReset, sideError{"read from upstream", errno})
		return false
	}
	return true
}

// pass writes b, which is the worker's buffer, and keeps what is not taken.
func (w *worker) pass(s *slot, d int, b []byte) bool {
	dir := &s.dirs[d]
	n := 0
	if s.readyTo[1-d] {
		var errno syscall.Errno
		n, errno = rawSend(s.fds[1-d], b)
		if errno != 0 {
			n = 0
			if !w.unwritten(s, d, errno) {
				return false
			}
		}
		w.copied(s, dir, n)
	}
	if n < len(b) {
		dir.pooled = spare.get()
		dir.rest = dir.pooled[:copy(dir.pooled[:], b[n:])]
	}
	return true
}

// flush writes what the direction holds. It returns false where the sink takes
// no more, or after the tunnel was broken off.
func (w *worker) flush(s *slot, d int) bool {
	dir := &s.dirs[d]
	var (
		n     int
		errno syscall.Errno
	)
	if len(dir.rest) > 0 {
		n, errno = rawSend(s.fds[1-d], dir.rest)
	} else {
		n, errno = rawSplice(dir.pipe.r, s.fds[1-d], dir.held)
	}
	if errno != 0 {
		return w.unwritten(s, d, errno) && interrupted(errno)
	}
	if len(dir.rest) == 0 {
		dir.held -= n
		dir.spliced += int64(n)
		s.active = w.now
		return true
	}
	w.copied(s, dir, n)
	if dir.rest = dir.rest[n:]; len(dir.rest) == 0 {
		dir.rest = nil
		if dir.pooled != nil {
			spare.put(dir.pooled)
			dir.pooled = nil
		}
	}
	return true
}

func (w *worker) copied(s *slot, dir *direction, n int) {
	dir.copied += int64(n)
	s.active = w.now
}

// unwritten deals with a write that failed. It returns false after the tunnel
// was broken off.
func (w *worker) unwritten(s *slot, d int, errno syscall.Errno) bool {
	switch {
	case again(errno):
		s.readyTo[1-d] = false
	case interrupted(errno):
	default:
		w.failed(s, 1-d, "write to", errno)
		return false
	}
	return true
}

// unpipe gives the direction's pipe back while nothing flows.
func (w *worker) unpipe(dir *direction) {
	if dir.piped && dir.held == 0 {
		w.pipes.put(dir.pipe)
		dir.piped = false
	}
}

// failed breaks the tunnel off after a side took no more bytes. A relay whose
// plugin has ended the tunnel does so too, without being an error.
func (w *worker) failed(s *slot, side int, what string, errno syscall.Errno) {
	if side == client {
		w.breakOff(s, tunnel.CloseClientReset, sideError{what + " client", errno})
		return
	}
	err := sideError{what + " upstream", errno}
	if s.relay != nil {
		// What is held has nowhere to go: the direction is over.
		w.drop(&s.dirs[client])
		s.dirs[client].state = dirTelling
		s.readyIn[client] = false
		w.ask(s, err)
		return
	}
	w.breakOff(s, tunnel.CloseUpstreamReset, err)
}

// notice looks for a side that died while there was nothing to read from it and
// nothing to write to it.
func (w *worker) notice(s *slot) {
	for side := range s.gone {
		dir := &s.dirs[side]
		if !s.gone[side] || dir.state == dirOpen && len(dir.rest) == 0 && dir.held == 0 {
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
	if s.reason == "" {
		s.reason = tunnel.CloseClientEOF
		if d == upstream {
			s.reason = tunnel.CloseUpstreamEOF
		}
	}
	if s.relay == nil {
		w.shut(s, d)
		return
	}
	// The plugin is told, or asked, on another goroutine: it may be slow.
	dir.state = dirTelling
	relay, key := s.relay, s.key(d)
	if d == client {
		go func() { w.submit(message{kind: msgAnnounced, key: key, err: relay.AnnounceEOF()}) }()
	} else {
		go func() { w.submit(message{kind: msgConfirmed, key: key, err: relay.ConfirmEOF()}) }()
	}
}

// announced goes on after the plugin was told that the client has ended.
func (w *worker) announced(s *slot, err error) {
	if s.broken {
		return
	}
	if err != nil {
		w.breakOff(s, upstreamReason(err), fmt.Errorf("end upstream: %w", err))
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
	if s.dirs[client].state != dirDone || s.dirs[upstream].state != dirDone {
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
	go func() {
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
	}()
}

// endConfirmed goes on after the plugin said how the tunnel ended. After a clean
// end what the client may still send has nowhere to go, as with a server that
// closes its connection.
func (w *worker) endConfirmed(s *slot, err error) {
	if s.broken {
		return
	}
	if err != nil {
		w.breakOff(s, upstreamReason(err), fmt.Errorf("end of upstream: %w", err))
		return
	}
	s.over = true
	s.dirs[client].state = dirDone
	w.finish(s)
}

func closeClean(fd int32) { _ = unix.Close(int(fd)) }

// breakOff ends the tunnel at once and tells both sides that it was not a clean
// end. A relay's plugin is told first, on another goroutine.
func (w *worker) breakOff(s *slot, reason tunnel.CloseReason, err error) {
	if s.broken {
		return
	}
	s.broken, s.reason, s.err = true, reason, err
	if s.relay == nil {
		w.free(s, closeReset)
		return
	}
	relay, key, text := s.relay, s.key(0), err.Error()
	go func() {
		relay.Abort(text)
		w.submit(message{kind: msgAborted, key: key})
	}()
}

// free closes the sockets and ends the use of the slot.
func (w *worker) free(s *slot, shut func(fd int32)) {
	s.fold()
	result := Result{Reason: s.reason, Err: s.err, Up: s.dirs[client].moved, Down: s.dirs[upstream].moved}
	for d := range s.dirs {
		w.drop(&s.dirs[d])
	}
	for _, fd := range s.fds {
		// Explicit, since somebody may still hold a copy of the socket.
		_ = unix.EpollCtl(w.epfd, unix.EPOLL_CTL_DEL, int(fd), nil)
		shut(fd)
	}
	relay, done := s.relay, s.done
	w.slots.give(s)
	// Logging and counting are not the worker's time.
	go func() {
		if relay != nil {
			relay.Ended()
		}
		done(result)
	}()
}

// drop gives back what a direction holds. A pipe with bytes in it is of no use
// to another.
func (w *worker) drop(dir *direction) {
	dir.rest = nil
	if dir.pooled != nil {
		spare.put(dir.pooled)
		dir.pooled = nil
	}
	switch {
	case dir.piped && dir.held > 0:
		w.pipes.discard(dir.pipe)
	case dir.piped:
		w.pipes.put(dir.pipe)
	}
	dir.piped, dir.held = false, 0
}
