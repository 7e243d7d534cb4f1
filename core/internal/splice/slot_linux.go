package splice

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/tunneld/tunneld/core/internal/tunnel"
)

// joined is what a tunnel keeps while it is idle, besides its slot.
type joined struct {
	fds      [2]int32  // client, upstream
	ahead    [2][]byte // until the first turn
	timeouts Timeouts
	relay    tunnel.Relay
	traffic  *tunnel.Traffic
	done     func(Result)
}

// The two sides of a tunnel. Direction d carries the bytes of side d to the
// other.
const (
	client   = 0
	upstream = 1
)

// slot is a tunnel's place in its worker.
type slot struct {
	*joined
	index, generation uint32

	queued  bool // in the worker's ready list
	broken  bool // broken off; the plugin is being told
	asked   bool // the plugin is being asked how the tunnel ended
	over    bool // it has said: cleanly
	readyIn [2]bool
	readyTo [2]bool
	finSeen [2]bool // a FIN came along: read on to zero
	gone    [2]bool // the socket is dead both ways

	dirs   [2]direction
	start  time.Duration
	active time.Duration
	reason tunnel.CloseReason
	err    error
}

type dirState uint8

const (
	dirOpen dirState = iota
	// dirEOF: the source has ended; what is held must be written.
	dirEOF
	// dirTelling: the plugin is being told, or asked, of the end.
	dirTelling
	// dirDone: the end has been passed on.
	dirDone
)

// direction is one way of a tunnel. It holds bytes in rest or in the pipe, never
// in both.
type direction struct {
	rest   []byte // to be written before anything else
	pooled *[smallRead]byte
	pipe   pipe
	piped  bool // pipe is held
	held   int  // bytes in the pipe
	bulk   bool // reads fill the buffer: splice
	state  dirState

	moved           int64 // all but what follows
	spliced, copied int64 // since the last fold
}

// fold adds what has moved to the traffic that is told.
func (s *slot) fold() {
	for d := range s.dirs {
		dir := &s.dirs[d]
		if dir.spliced|dir.copied == 0 {
			continue
		}
		dir.moved += dir.spliced + dir.copied
		if t := s.traffic; t != nil {
			way := &t.Up
			if d == upstream {
				way = &t.Down
			}
			way.Spliced.Add(dir.spliced)
			way.Copied.Add(dir.copied)
		}
		dir.spliced, dir.copied = 0, 0
	}
}

// note takes up what epoll says of a side.
func (s *slot) note(side int, events uint32) {
	if events&(unix.EPOLLIN|unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		s.readyIn[side] = true
	}
	if events&(unix.EPOLLOUT|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		s.readyTo[side] = true
	}
	if events&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		s.finSeen[side] = true
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

// slab is the worker's slots. A slot never moves.
type slab struct {
	chunks []*[slabChunk]slot
	unused []*slot
	live   int
}

const slabChunk = 256

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
	a.live++
	return s
}

// give takes s back. Keys of its last use no longer find it.
func (a *slab) give(s *slot) {
	*s = slot{index: s.index, generation: s.generation + 1}
	a.unused = append(a.unused, s)
	a.live--
}

func (a *slab) find(key slotKey) (*slot, int) {
	index := int(uint32(key >> 1))
	if index/slabChunk >= len(a.chunks) {
		return nil, 0
	}
	s := &a.chunks[index/slabChunk][index%slabChunk]
	side := int(key & 1)
	if s.joined == nil || s.key(side) != key {
		return nil, 0
	}
	return s, side
}

// each calls do for every live slot; do may free it.
func (a *slab) each(do func(*slot)) {
	for _, chunk := range a.chunks {
		for i := range chunk {
			if chunk[i].joined != nil {
				do(&chunk[i])
			}
		}
	}
}
