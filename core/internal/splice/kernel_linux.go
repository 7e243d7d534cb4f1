package splice

import (
	"errors"
	"fmt"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tunneld/tunneld/core/internal/tunnel"
	"github.com/tunneld/tunneld/internal/bare"
)

// maxWorkers bounds the workers; more do not make one machine's loopback or
// network faster.
const maxWorkers = 8

// kernel is the pump by epoll and splice.
type kernel struct {
	workers []*worker
	next    atomic.Uint32
	origins origins
	closing chan struct{}
	ticking sync.WaitGroup
}

func (k *kernel) init(tunnels *counter, lines *lineCheck, began time.Time) error {
	k.closing = make(chan struct{})
	n := min(runtime.GOMAXPROCS(0), maxWorkers)
	pipes := pipesAllowed(n)
	for range n {
		w, err := newWorker(tunnels, pipes, lines, began)
		if err != nil {
			return errors.Join(fmt.Errorf("start pump: %w", err), k.close())
		}
		k.workers = append(k.workers, w)
	}
	k.ticking.Go(func() { k.tick(tunnels) })
	return nil
}

// tick tells the workers the time, as long as there are tunnels, and watches them.
func (k *kernel) tick(tunnels *counter) {
	t := time.NewTicker(tick)
	defer t.Stop()
	seen := make([]sighting, len(k.workers))
	for {
		select {
		case <-k.closing:
			return
		case <-t.C:
		}
		if tunnels.n.Load() == 0 {
			continue
		}
		for i, w := range k.workers {
			w.submit(message{kind: msgTick})
			now := w.sight()
			if now.at != nil && now == seen[i] {
				k.ticking.Go(func() { w.watch(now) })
			}
			seen[i] = now
		}
	}
}

// start takes t over, or leaves it alone and returns false where its
// connections are not sockets or there are no descriptors for it, and where plugins
// have a hand in both: a worker guards itself from one of them alone.
func (k *kernel) start(t *Tunnel) bool {
	flip := uint8(0)
	if byPlugin(&t.Client) {
		flip = 1
		if byPlugin(&t.Upstream) {
			return false
		}
	}
	cfd, ok := takeSocket(t.Client)
	if !ok {
		return false
	}
	ufd, ok := takeSocket(t.Upstream)
	if !ok {
		if t.Client.Socket == nil {
			_ = unix.Close(int(cfd)) // a duplicate
		}
		return false
	}
	// The duplicates keep the sockets open.
	for _, c := range []net.Conn{t.Client.Stream, t.Upstream.Stream} {
		if c != nil {
			_ = c.Close()
		}
	}
	setLinger(cfd, &unfinished)
	setLinger(ufd, &unfinished)
	m := message{kind: msgJoin, join: t, flip: flip}
	m.fds[client^flip], m.fds[upstream^flip] = cfd, ufd
	if plugin := t.Client.Plugin + t.Upstream.Plugin; plugin != "" { // one of the two has one
		m.from = k.origins.of(plugin)
	}
	k.workers[k.next.Add(1)%uint32(len(k.workers))].submit(m)
	return true
}

// byPlugin says whether a plugin may have a hand in e's socket.
func byPlugin(e *tunnel.End) bool { return e.Plugin != "" || e.Relay != nil }

// takeSocket returns the descriptor of e's socket, or one of its own for the socket
// that e's stream is.
func takeSocket(e tunnel.End) (int32, bool) {
	if e.Socket != nil {
		return int32(e.Socket.Take()), true
	}
	raw, ok := bareSocket(e.Stream)
	if !ok {
		return -1, false
	}
	fd, err := dupSocket(raw)
	if err != nil {
		return -1, false
	}
	bare.Fit(int(fd))
	return fd, true
}

func (k *kernel) stats(s *Stats) {
	s.Workers = len(k.workers)
	for _, w := range k.workers {
		s.Paused += int(w.waiting.Load())
		s.PipesInUse += int(w.pipes.inUse.Load())
		s.PipesIdle += int(w.pipes.kept.Load())
		s.PipesMade += w.pipes.made.Load()
		s.PipesRefused += w.pipes.refused.Load()
		s.PipesSmall += w.pipes.small.Load()
	}
}

func (k *kernel) measure() {
	for _, w := range k.workers {
		w.submit(message{kind: msgMeasure})
	}
}

func (k *kernel) kill() {
	for _, w := range k.workers {
		w.submit(message{kind: msgKill})
	}
}

func (k *kernel) close() error {
	close(k.closing)
	k.ticking.Wait()
	var errs []error
	for _, w := range k.workers {
		errs = append(errs, w.close())
	}
	return errors.Join(errs...)
}
