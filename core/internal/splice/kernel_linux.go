package splice

import (
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// maxWorkers bounds the workers; more do not make one machine's loopback or
// network faster.
const maxWorkers = 8

// kernel is the pump by epoll and splice.
type kernel struct {
	workers []*worker
	next    atomic.Uint32
}

func (k *kernel) init() error {
	for range min(runtime.GOMAXPROCS(0), maxWorkers) {
		w, err := newWorker()
		if err != nil {
			return errors.Join(fmt.Errorf("start pump: %w", err), k.close())
		}
		k.workers = append(k.workers, w)
	}
	return nil
}

// start takes t over, or leaves it alone and returns false where its
// connections are not bare sockets or there are no descriptors for it.
func (k *kernel) start(t Tunnel) bool {
	client, ok := bareSocket(t.Client)
	if !ok {
		return false
	}
	upstream, ok := bareSocket(t.Upstream.Stream)
	if !ok {
		return false
	}
	cfd, err := dupSocket(client)
	if err != nil {
		return false
	}
	ufd, err := dupSocket(upstream)
	if err != nil {
		_ = unix.Close(int(cfd))
		return false
	}
	// The duplicates keep the sockets open.
	_ = t.Client.Close()
	_ = t.Upstream.Stream.Close()
	j := &joined{
		fds:      [2]int32{cfd, ufd},
		ahead:    [2][]byte{t.ClientAhead, t.Upstream.ReadAhead},
		timeouts: t.Timeouts,
		relay:    t.Upstream.Relay,
		done:     t.Done,
	}
	w := k.workers[k.next.Add(1)%uint32(len(k.workers))]
	w.submit(message{kind: msgJoin, join: j})
	return true
}

func (k *kernel) kill() {
	for _, w := range k.workers {
		w.submit(message{kind: msgKill})
	}
}

func (k *kernel) close() error {
	var errs []error
	for _, w := range k.workers {
		errs = append(errs, w.close())
	}
	return errors.Join(errs...)
}
