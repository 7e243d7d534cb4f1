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
	// pipePause is for how long bytes are copied after the system had no pipe.
	pipePause = time.Second
)

// pipe is the kernel's buffer between two sockets.
type pipe struct {
	r, w int32
	size int
}

// pipes are a worker's own: no lock. Anybody may read the counts.
type pipes struct {
	idle  []pipe
	retry time.Duration // no try to make one before this time

	inUse, kept          atomic.Int64
	made, refused, small atomic.Uint64
}

// get returns an empty pipe, or false where the system has none to give.
func (p *pipes) get(now time.Duration) (pipe, bool) {
	if n := len(p.idle); n > 0 {
		got := p.idle[n-1]
		p.idle = p.idle[:n-1]
		p.kept.Add(-1)
		p.inUse.Add(1)
		return got, true
	}
	if now < p.retry {
		return pipe{}, false
	}
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		p.retry = now + pipePause
		p.refused.Add(1)
		return pipe{}, false
	}
	p.made.Add(1)
	p.inUse.Add(1)
	made := pipe{r: int32(fds[0]), w: int32(fds[1]), size: pipeSize}
	if _, err := unix.FcntlInt(uintptr(fds[1]), unix.F_SETPIPE_SZ, pipeSize); err != nil {
		if size, err := unix.FcntlInt(uintptr(fds[1]), unix.F_GETPIPE_SZ, 0); err == nil {
			made.size = size
		}
		p.small.Add(1)
	}
	return made, true
}

// put takes back a pipe that is empty.
func (p *pipes) put(got pipe) {
	if len(p.idle) == pipesKept {
		p.discard(got)
		return
	}
	p.idle = append(p.idle, got)
	p.kept.Add(1)
	p.inUse.Add(-1)
}

// discard closes a pipe that was got.
func (p *pipes) discard(got pipe) {
	got.close()
	p.inUse.Add(-1)
}

func (p *pipes) closeAll() {
	for _, i := range p.idle {
		i.close()
	}
	p.idle = nil
	p.kept.Store(0)
}

func (p pipe) close() {
	_ = unix.Close(int(p.r))
	_ = unix.Close(int(p.w))
}
