package splice

import (
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tunneld/tunneld/core/internal/tunnel"
	"github.com/tunneld/tunneld/internal/sockopt"
)

// handed is a socket that a plugin handed over. The plugin may have kept a copy, and
// O_NONBLOCK and SO_LINGER belong to the socket, not to a descriptor: whoever holds a
// copy can make a splice and a close wait. So the watch breaks the socket off where the
// worker does not come back from it, and the worker does not close it.
type handed struct {
	fd   int32
	from *origin

	mu     sync.Mutex // held while it is broken off, or closed
	closed bool
	stuck  atomic.Bool // the watch has broken it off
}

// origin is a plugin, to its sockets.
type origin struct {
	plugin string
	// suspect: a call on one of its sockets has lasted. None is spliced any more:
	// MSG_DONTWAIT, which splice does not have, is the call's own.
	suspect atomic.Bool
	// closing has one for each close under way: where they wait, they wait for no
	// other plugin's.
	closing chan struct{}
}

const (
	// closersEach bounds the threads that wait in close for a plugin's sockets.
	closersEach = 4
	// closeTime is how long such a wait may last.
	closeTime = 100 * time.Millisecond
)

// origins are the plugins, by name.
type origins struct{ byName sync.Map }

func (o *origins) of(plugin string) *origin {
	if v, ok := o.byName.Load(plugin); ok {
		return v.(*origin)
	}
	v, _ := o.byName.LoadOrStore(plugin, &origin{plugin: plugin, closing: make(chan struct{}, closersEach)})
	return v.(*origin)
}

// breakOff ends what waits for the socket.
func (h *handed) breakOff() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed || h.stuck.Swap(true) {
		return
	}
	h.from.suspect.Store(true)
	// A unix socket cannot be disconnected, and some kernels do not disconnect one
	// that somebody waits for.
	if sockopt.Disconnect(uintptr(h.fd)) != nil {
		_ = unix.Shutdown(int(h.fd), unix.SHUT_RDWR) // it fails on one that is reset
	}
}

// close closes the socket by shut. Whoever has a copy may set SO_LINGER in the last
// moment, and give the copy up: then close waits, and a signal ends that. SIGURG is
// the one that Go's runtime takes at any time.
func (h *handed) close(epfd int, shut func(fd int32)) {
	h.from.closing <- struct{}{}
	defer func() { <-h.from.closing }()
	h.mu.Lock()
	h.closed = true
	h.mu.Unlock()
	// A copy would keep it in there.
	_ = unix.EpollCtl(epfd, unix.EPOLL_CTL_DEL, int(h.fd), nil)

	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	pid, thread := unix.Getpid(), unix.Gettid()
	done := make(chan struct{})
	defer close(done)
	late := time.AfterFunc(closeTime, func() {
		for {
			_ = unix.Tgkill(pid, thread, unix.SIGURG) // the thread may have ended
			select {
			case <-done:
				return
			case <-time.After(closeTime):
			}
		}
	})
	defer late.Stop()
	shut(h.fd)
}

// sighting is what the watch sees of a worker.
type sighting struct {
	at    *handed // the handed-over socket that it is at, or nil
	visit uint32  // which visit that is
}

// sight is called by the watch. at is read first: if visit is the same in two
// sightings, it was the same at the second one's at.
func (w *worker) sight() sighting {
	at := w.at.Load()
	return sighting{at, w.visit.Load()}
}

// enter is called before the worker deals with s, leave after it, with what enter
// has returned.
func (w *worker) enter(s *slot) *handed {
	h := s.handed
	if h != nil {
		w.visit.Add(1)
		w.at.Store(h)
	}
	return h
}

func (w *worker) leave(s *slot, h *handed) {
	if h == nil {
		return
	}
	w.at.Store(nil)
	if s.handed == h && s.stuck() {
		w.breakOff(s, "", nil) // it knows why
	}
}

// looks is how often the watch looks again at a worker that has been at a socket
// for a tick, lookPause apart: after the whole process stood still, it moves on.
const (
	looks     = 5
	lookPause = 50 * time.Millisecond
)

// watch breaks off the socket that the worker has been at for a tick, unless it moves
// on.
func (w *worker) watch(seen sighting) {
	for range looks {
		time.Sleep(lookPause)
		if w.sight() != seen {
			return
		}
	}
	seen.at.breakOff()
}

// recv, send, fromSocket and toSocket are a worker's calls on a socket of s. A splice
// may wait on one that was handed over, so the scheduler has to know of it: else
// nothing could stop the world meanwhile, and the watch would stand still.

func (s *slot) recv(side int, b []byte) (int, syscall.Errno) {
	return s.unlessStuck(rawRecv(s.fds[side], b))
}

func (s *slot) send(side int, b []byte) (int, syscall.Errno) {
	return s.unlessStuck(rawSend(s.fds[side], b))
}

func (s *slot) fromSocket(side int, p *pipe, most int) (int, syscall.Errno) {
	most = min(p.size, most)
	// From a unix socket splice's own flag is enough.
	if side == upstream && s.handed != nil && s.relay == nil {
		return s.unlessStuck(blockingSplice(s.fds[side], p.w, most))
	}
	return rawSplice(s.fds[side], p.w, most)
}

func (s *slot) toSocket(side int, p *pipe) (int, syscall.Errno) {
	if side == upstream && s.handed != nil {
		return s.unlessStuck(blockingSplice(p.r, s.fds[side], p.held))
	}
	return rawSplice(p.r, s.fds[side], p.held)
}

// errBrokenOff is what every call returns once the watch has broken the tunnel off,
// whatever the kernel says: it may be an end of file.
const errBrokenOff = syscall.ECANCELED

func (s *slot) unlessStuck(n int, errno syscall.Errno) (int, syscall.Errno) {
	if s.stuck() {
		return -1, errBrokenOff
	}
	return n, errno
}

// stuck says that the watch has broken the tunnel off.
func (s *slot) stuck() bool { return s.handed != nil && s.handed.stuck.Load() }

// heldUp is how a tunnel ends that is stuck.
func (s *slot) heldUp() *ending {
	return &ending{resetReasons[s.side(upstream)], &HeldUpError{s.handed.from.plugin}}
}

// suspect says that the tunnel must not be spliced.
func (s *slot) suspect() bool { return s.handed != nil && s.handed.from.suspect.Load() }

// unspliced takes from the pipe what fits, for a sink that must not be spliced to. It
// returns false after the tunnel was broken off.
func (w *worker) unspliced(s *slot, d int) bool {
	dir := &s.dirs[d]
	b := w.buf[:min(dir.pipe.held, len(w.buf))]
	n, err := unix.Read(int(dir.pipe.r), b)
	if err != nil { // it holds them, and nobody else has it
		w.breakOff(s, tunnel.CloseKilled, fmt.Errorf("read from pipe: %w", err))
		return false
	}
	dir.pipe.held -= n
	dir.rest = newRest(b[:n])
	return true
}
