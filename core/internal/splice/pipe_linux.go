package splice

import (
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// pipeSize is asked of the kernel; it grants less to an unprivileged user
	// who has many (pipe(7), /proc/sys/fs/pipe-user-pages-soft).
	pipeSize = 256 << 10
	// pipesKept is how many idle pipes a worker keeps. A direction holds one
	// only while bytes flow, so few serve many tunnels.
	pipesKept = 32
	// pipesMost bounds the pipes of a pump; whoever gets none copies. A direction
	// whose sink is slow holds its pipe for as long as that lasts, and at this
	// number and size an unprivileged user's share (64 MiB) is just used up.
	pipesMost = 256
	// pipePause is how long to wait after the system had no pipe, or no larger
	// one.
	pipePause = time.Second
)

// pipesAllowed is the bound for each of some workers: of all descriptors that the
// process may have, no more than a sixteenth are for pipes.
func pipesAllowed(workers int) int {
	most := pipesMost
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err == nil {
		most = int(min(limit.Cur/32, pipesMost))
	}
	return max(most/workers, 1)
}

// pipe is the kernel's buffer between two sockets.
type pipe struct {
	r, w int32
	size int
	held int // bytes in it
}

// pipes are a worker's own: no lock. Anybody may read the counts.
type pipes struct {
	idle []*pipe
	live int // idle or in use
	most int
	// No try to make one before retry, or to make one larger before grow.
	retry, grow time.Duration

	inUse, kept          atomic.Int64
	made, refused, small atomic.Uint64
}

// get returns an empty pipe, or nil where there is none to have.
func (p *pipes) get(now time.Duration) *pipe {
	if n := len(p.idle); n > 0 {
		got := p.idle[n-1]
		p.idle = p.idle[:n-1]
		p.kept.Add(-1)
		p.inUse.Add(1)
		if got.size < pipeSize && now >= p.grow && !got.enlarge() {
			p.grow = now + pipePause
		}
		return got
	}
	if p.live >= p.most || now < p.retry {
		return nil
	}
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		p.retry = now + pipePause
		p.refused.Add(1)
		return nil
	}
	p.live++
	p.made.Add(1)
	p.inUse.Add(1)
	made := &pipe{r: int32(fds[0]), w: int32(fds[1])}
	if !made.enlarge() {
		p.small.Add(1)
	}
	return made
}

// enlarge asks for the full size. It returns false where the pipe stays smaller.
func (p *pipe) enlarge() bool {
	if _, err := unix.FcntlInt(uintptr(p.w), unix.F_SETPIPE_SZ, pipeSize); err == nil {
		p.size = pipeSize
		return true
	}
	p.size = smallRead
	if size, err := unix.FcntlInt(uintptr(p.w), unix.F_GETPIPE_SZ, 0); err == nil {
		p.size = size
	}
	return false
}

// put takes back a pipe. One with bytes in it is of no use to another.
func (p *pipes) put(got *pipe) {
	p.inUse.Add(-1)
	if got.held > 0 || len(p.idle) == pipesKept {
		p.live--
		got.close()
		return
	}
	p.idle = append(p.idle, got)
	p.kept.Add(1)
}

func (p *pipes) closeAll() {
	for _, i := range p.idle {
		i.close()
	}
	p.idle = nil
	p.kept.Store(0)
}

func (p *pipe) close() {
	_ = unix.Close(int(p.r))
	_ = unix.Close(int(p.w))
}
