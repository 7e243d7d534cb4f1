package splice

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/tunneld/tunneld/core/internal/tunnel"
	"github.com/tunneld/tunneld/internal/sockopt"
)

// slot is a tunnel in its worker: all that it holds while it is idle, in one
// piece, which the next tunnel uses again.
type slot struct {
	index, generation uint32
	fds               [2]int32 // client, upstream
	handed            *handed  // the upstream, where a plugin handed it over

	// The worker takes the side that a plugin has a hand in for the upstream. flip is
	// 1 where it is the client, and otherwise 0: see side.
	flip    uint8
	state   tunnelState
	queued  bool // in the worker's ready list
	readyIn [2]bool
	readyTo [2]bool
	finSeen [2]bool // a FIN came along: read on to zero
	urgent  [2]bool // urgent data came along: a short read says nothing
	gone    [2]bool // the socket is dead both ways

	dirs     [2]direction
	start    time.Duration
	active   time.Duration
	backlog  backlog
	lines    [2]sockopt.Line
	timeouts Timeouts
	meter    *meter // nil: nothing limits the tunnel, nor ever will
	relay    tunnel.Relay
	traffic  *tunnel.Traffic
	done     func(Result)
	ending   *ending // nil: nothing has ended
}

// side is what the worker's side d, or its direction, is in fact, and the other way
// round.
func (s *slot) side(d int) int { return d ^ int(s.flip) }

func (s *slot) name(d int) string { return sideNames[s.side(d)] }

// ending is why a tunnel ends.
type ending struct {
	reason tunnel.CloseReason
	err    error
}

// eofs are the endings of clean tunnels, by the side that ended first.
var eofs = [2]ending{{reason: tunnel.CloseClientEOF}, {reason: tunnel.CloseUpstreamEOF}}

// direction is one way of a tunnel. It holds bytes in rest or in the pipe, and in
// both only where the pipe must not be spliced from any more.
type direction struct {
	rest  *rest // to be written before anything else
	pipe  *pipe
	state dirState
	bulk  bool // reads fill the buffer: splice
	plain bool // the socket cannot be spliced

	moved           int64 // all but what follows
	spliced, copied int64 // since the last fold
}

// holds says whether bytes wait to be written.
func (d *direction) holds() bool { return d.rest != nil || d.pipe != nil && d.pipe.held > 0 }

// rest is bytes that were read and not written.
type rest struct {
	b      []byte
	pooled *[smallRead]byte // under b, or nil
}

func newRest(b []byte) *rest {
	buf := spare.get()
	return &rest{b: buf[:copy(buf[:], b)], pooled: buf}
}

func (d *direction) dropRest() {
	if d.rest != nil && d.rest.pooled != nil {
		spare.put(d.rest.pooled)
	}
	d.rest = nil
}

// fold adds what has moved to the traffic that is reported.
func (s *slot) fold() {
	for d := range s.dirs {
		dir := &s.dirs[d]
		if dir.spliced|dir.copied == 0 {
			continue
		}
		dir.moved += dir.spliced + dir.copied
		if moved := s.movedBy(d); moved != nil {
			moved.Spliced.Add(dir.spliced)
			moved.Copied.Add(dir.copied)
		}
		dir.spliced, dir.copied = 0, 0
	}
}

// movedBy is what direction d counts in; nil: nobody asks.
func (s *slot) movedBy(d int) *tunnel.Moved { return movedBy(s.traffic, s.side(d)) }

// held is how many bytes the sockets hold for their peers.
func (s *slot) held() int { return held(s.fds[client]) + held(s.fds[upstream]) }

// note takes up what epoll says of a side.
func (s *slot) note(side int, events uint32) {
	if events&(unix.EPOLLIN|unix.EPOLLPRI|unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		s.readyIn[side] = true
	}
	if events&(unix.EPOLLOUT|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		s.readyTo[side] = true
	}
	if events&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		s.finSeen[side] = true
	}
	if events&unix.EPOLLPRI != 0 {
		s.urgent[side] = true
	}
	if events&(unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		s.gone[side] = true
	}
}

// slotKey names a slot, a use of it, and a side: descriptors are reused, also
// within one batch of events.
type slotKey uint64

func (s *slot) key(side int) slotKey {
	return slotKey(s.generation)<<33 | slotKey(s.index)<<1 | slotKey(side)
}

// slab is the worker's slots. A slot never moves, and is never freed.
type slab struct {
	chunks []*[slabChunk]slot
	unused []*slot
}

const slabChunk = 256

// take returns a free slot. It is found by its keys once it has another state.
func (a *slab) take() *slot {
	if len(a.unused) == 0 {
		chunk := new([slabChunk]slot)
		for i := range chunk {
			chunk[slabChunk-1-i].index = uint32(len(a.chunks)*slabChunk + slabChunk - 1 - i)
			a.unused = append(a.unused, &chunk[slabChunk-1-i])
		}
		a.chunks = append(a.chunks, chunk)
	}
	s := a.unused[len(a.unused)-1]
	a.unused = a.unused[:len(a.unused)-1]
	return s
}

// give takes s back. Keys of its last use no longer find it.
func (a *slab) give(s *slot) {
	*s = slot{index: s.index, generation: s.generation + 1}
	a.unused = append(a.unused, s)
}

func (a *slab) find(key slotKey) (*slot, int) {
	index := int(uint32(key >> 1))
	if index/slabChunk >= len(a.chunks) {
		return nil, 0
	}
	s := &a.chunks[index/slabChunk][index%slabChunk]
	side := int(key & 1)
	if s.state == tunnelFree || s.key(side) != key {
		return nil, 0
	}
	return s, side
}

// each calls do for every tunnel; do may free it.
func (a *slab) each(do func(*slot)) {
	for _, chunk := range a.chunks {
		for i := range chunk {
			if chunk[i].state != tunnelFree {
				do(&chunk[i])
			}
		}
	}
}
