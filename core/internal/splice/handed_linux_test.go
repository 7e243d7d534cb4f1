package splice

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tunneld/tunneld/core/internal/tunnel"
)

// keepCopy makes another descriptor of c's socket, as a plugin may. The test may
// close it, and forget it by setting it to -1.
func keepCopy(t *testing.T, c net.Conn) *int {
	t.Helper()
	raw, ok := bareSocket(c)
	if !ok {
		t.Fatal("not a socket")
	}
	fd, err := dupSocket(raw)
	if err != nil {
		t.Fatal(err)
	}
	kept := int(fd)
	t.Cleanup(func() {
		if kept >= 0 {
			unix.Close(kept)
		}
	})
	return &kept
}

func closeCopy(t *testing.T, fd *int) {
	t.Helper()
	if err := unix.Close(*fd); err != nil {
		t.Fatal(err)
	}
	*fd = -1
}

// TestHeldUp: a plugin that holds a copy of a handed-over socket makes the worker
// wait in splice. That tunnel is broken off and its plugin named, the tunnels of
// others go on, and the next ones of the plugin are not spliced.
func TestHeldUp(t *testing.T) {
	for name, s := range map[string]shape{
		"direct, towards the client":   {},
		"direct, towards the upstream": {up: []byte("x")},
		"relay, towards the upstream":  {up: []byte("x"), relay: true},
		// In the other direction splice(2) knows a flag of its own for unix sockets.
	} {
		t.Run(name, func(t *testing.T) {
			p := newPump(t)
			// One for each worker: one of them waits behind the evil one.
			var others []*rig
			for range p.Stats().Workers {
				others = append(others, newRig(t, p.Start, shape{}))
			}
			holdUp(t, p, s)
			copied(t, p, s)
			for _, r := range others {
				write(t, r.client, "go on")
				read(t, r.upstream, "go on")
			}
		})
	}
}

// evilRig is a tunnel whose upstream the plugin "evil" has made blocking. from and to
// are the ends of the direction that s is about: with bytes ahead it is the client's.
func evilRig(t *testing.T, p *Pump, s shape) (r *rig, from, to net.Conn) {
	t.Helper()
	var kept *int
	s.plugin = "evil"
	s.before = func(_ *rig, _, upstream net.Conn) { kept = keepCopy(t, upstream) }
	r = newRig(t, p.Start, s)
	read(t, r.upstream, string(s.up))
	if err := unix.SetNonblock(*kept, false); err != nil {
		t.Fatal(err)
	}
	if s.up != nil {
		return r, r.client, r.upstream
	}
	return r, r.upstream, r.client
}

// holdUp makes the worker wait: towards the client for more to splice, towards the
// upstream for its far end to read.
func holdUp(t *testing.T, p *Pump, s shape) {
	t.Helper()
	r, from, to := evilRig(t, p, s)
	var sending sync.WaitGroup
	var sent error
	sending.Go(func() {
		piece := make([]byte, 32<<20)
		_, sent = from.Write(piece)
		for sent == nil && s.up != nil { // until nothing takes more
			_, sent = from.Write(piece)
		}
	})
	// The garbage collector stops the world, where it can.
	sending.Go(func() {
		for deadline := time.Now().Add(time.Second); time.Now().Before(deadline); {
			runtime.GC()
		}
	})
	if s.up == nil {
		_, _ = io.Copy(io.Discard, to) // until it is reset
	}
	var res Result
	reset := false // to was, and has said so
	for ended := false; !ended; {
		select {
		case res = <-r.result:
			ended = true
		case <-time.After(8 * time.Second):
			// The last bytes before nothing took more were copied: once more.
			if err := to.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
				t.Fatal(err)
			}
			_, err := io.Copy(io.Discard, to)
			reset = errors.Is(err, syscall.ECONNRESET)
		}
	}
	if err := to.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	var held *HeldUpError
	if !errors.As(res.Err, &held) || held.Plugin != "evil" {
		t.Errorf("result %+v", res)
	}
	sending.Wait()
	cut := errors.Is(sent, syscall.ECONNRESET) || errors.Is(sent, syscall.EPIPE)
	if s.up != nil && !cut {
		t.Errorf("the client's write: %v; want a reset", sent)
	}
	seen := reset // by the upstream's far end, whose system says so once
	if s.up == nil {
		seen = cut
	}
	if r.relay == nil && !seen {
		expectReset(t, r.upstream)
	}
}

// copied carries 32 MiB through a tunnel of which nothing is spliced.
func copied(t *testing.T, p *Pump, s shape) {
	t.Helper()
	var traffic tunnel.Traffic
	s.traffic = &traffic
	r, from, to := evilRig(t, p, s)
	body := bytes.Repeat([]byte("0123456789abcdef"), 32<<20/16)
	var sending sync.WaitGroup
	sending.Go(func() {
		if _, err := from.Write(body); err != nil {
			t.Error(err)
		}
	})
	got := make([]byte, len(body))
	if _, err := io.ReadFull(to, got); err != nil || !bytes.Equal(got, body) {
		t.Errorf("%v, or other bytes", err)
	}
	sending.Wait()
	r.resetClient(t)
	r.wait(t)
	if n := traffic.Up.Spliced.Load() + traffic.Down.Spliced.Load(); n != 0 {
		t.Errorf("%d bytes were spliced", n)
	}
}

// TestLingeringCopy: SO_LINGER makes close wait for a far end that does not read. The
// worker does not, what was sent arrives, and neither do more threads than a few for
// all of a plugin's sockets, where its copy is given up in the very last moment.
func TestLingeringCopy(t *testing.T) {
	linger := func(fd int) {
		t.Helper()
		if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1, Linger: 3600}); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("tunnel", func(t *testing.T) {
		p := newPump(t)
		var kept *int
		r := newRig(t, p.Start, shape{plugin: "evil", before: func(_ *rig, _, upstream net.Conn) { kept = keepCopy(t, upstream) }})
		r.halfCloseUpstream(t)
		expectEOF(t, r.client, "")
		linger(*kept)
		closeCopy(t, kept)
		uploadAtTheEnd(t, r)
	})
	t.Run("last moment", func(t *testing.T) {
		w := newPump(t).kernel.workers[0]
		const sockets = 40
		var origins origins
		before, most := threads(t), 0
		var lent []*handed
		for range sockets {
			near, _ := tcpPair(t)
			fill(t, near)
			kept := keepCopy(t, near)
			h := &handed{fd: int32(*kept), from: origins.of("evil")}
			*kept = -1 // h closes it
			if err := near.Close(); err != nil {
				t.Fatal(err)
			}
			linger(int(h.fd))
			lent = append(lent, h)
		}
		var closing sync.WaitGroup
		for _, h := range lent {
			closing.Go(func() { h.close(w.epfd, func(fd int32) { _ = unix.Close(int(fd)) }) })
		}
		done := make(chan struct{})
		go func() {
			closing.Wait()
			close(done)
		}()
		for {
			select {
			case <-done:
				if most > before+sockets/2 {
					t.Errorf("%d threads before, and %d meanwhile", before, most)
				}
				return
			default:
				most = max(most, threads(t))
			}
		}
	})
}

// threads counts this process's.
func threads(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}
