package splice

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tunneld/tunneld/core/internal/tunnel"
)

// TestPausedTunnelSleeps: who waits for bandwidth takes no time of a processor, also while
// its peer goes on to send.
func TestPausedTunnelSleeps(t *testing.T) {
	p := newPump(t)
	r, _ := pausedRig(t, p, p.Start, client, shape{})
	write(t, r.client, string(make([]byte, 64<<10)))
	used := func() time.Duration {
		var u unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
			t.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	const long = 500 * time.Millisecond
	before := used()
	time.Sleep(long)
	if got := used() - before; got > long/4 {
		t.Errorf("%s of a processor in %s", got, long)
	}
}

// TestPausedTunnelEnds: whoever breaks it off, and by a limit in time.
func TestPausedTunnelEnds(t *testing.T) {
	for name, tt := range map[string]struct {
		end  func(t *testing.T, p *Pump, r *rig)
		s    shape
		want tunnel.CloseReason
	}{
		"client":       {func(t *testing.T, _ *Pump, r *rig) { r.resetClient(t) }, shape{}, tunnel.CloseClientReset},
		"upstream":     {func(t *testing.T, _ *Pump, r *rig) { r.resetUpstream(t) }, shape{}, tunnel.CloseUpstreamReset},
		"client relay": {func(t *testing.T, _ *Pump, r *rig) { r.resetClient(t) }, shape{relay: true}, tunnel.CloseClientReset},
		"relay":        {func(t *testing.T, _ *Pump, r *rig) { r.resetUpstream(t) }, shape{relay: true}, tunnel.CloseUpstreamReset},
		"plugin":       {func(t *testing.T, _ *Pump, r *rig) { r.relay.end(tunnel.ErrPluginDied); _ = r.upstream.Close() }, shape{relay: true}, tunnel.ClosePluginDied},
		"lifetime":     {func(*testing.T, *Pump, *rig) {}, shape{timeouts: Timeouts{Lifetime: 2 * time.Second}}, tunnel.CloseLifetime},
	} {
		eachPumpOf(t, func(t *testing.T, p *Pump, start func(Tunnel)) {
			for way, direction := range []string{"up", "down"} {
				t.Run(name+", "+direction, func(t *testing.T) {
					r, _ := pausedRig(t, p, start, way, tt.s)
					tt.end(t, p, r)
					if res := r.wait(t); res.Reason != tt.want || res.Err == nil {
						t.Errorf("result %+v, want %s", res, tt.want)
					}
					if n := p.Stats().Paused; n != 0 {
						t.Errorf("%d directions wait", n)
					}
				})
			}
		})
	}
}

// TestPausesAreInOrder: directions go on when their pause is over, and no earlier; a tunnel
// that has ended is none of them.
func TestPausesAreInOrder(t *testing.T) {
	w := &worker{}
	_, rates := limit(&Pump{began: time.Now()}, Bandwidth{Up: 1 << 10})
	var slots []*slot
	for i := range 100 {
		s := &slot{index: uint32(i), meter: rates.measure(nil, 0)}
		a := s.allowance(client)
		for n := i * 37 % 100; n >= 0; n-- {
			a.take(a.turn, 0)
		}
		if w.allowed(s, client, a) != 0 || !s.paused(client) || s.paused(upstream) {
			t.Fatal("it does not wait")
		}
		slots = append(slots, s)
	}
	for i := 0; i < len(slots); i += 3 {
		w.unmeter(slots[i])
	}
	for last := time.Duration(0); len(w.pauses) > 0; {
		next := w.pauses.next()
		if next < last {
			t.Fatalf("a pause ends at %s, after one at %s", next, last)
		}
		if w.now = next - 1; w.now > last {
			left := len(w.pauses)
			w.resume()
			if len(w.pauses) != left {
				t.Fatal("a pause has ended early")
			}
		}
		last, w.now = next, next
		left := len(w.pauses)
		w.resume()
		if len(w.pauses) == left {
			t.Fatal("a pause goes on")
		}
	}
	if n := w.waiting.Load(); n != 0 {
		t.Errorf("%d wait", n)
	}
}

// TestEventsAreSeenWhilePausesEnd: a worker that is always late for the end of a pause still
// sees what its sockets tell.
func TestEventsAreSeenWhilePausesEnd(t *testing.T) {
	w, err := newWorker(&counter{}, 1, defaultLineCheck(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	w.submit(message{kind: msgClose})
	<-w.stopped
	defer w.epoll.Close()
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pipe[0])
	defer unix.Close(pipe[1])
	if err := unix.EpollCtl(w.epfd, unix.EPOLL_CTL_ADD, pipe[1], &unix.EpollEvent{Events: unix.EPOLLOUT}); err != nil {
		t.Fatal(err)
	}
	w.pauses = pauses{{pause: pause{due: 1, place: 1}}}
	if n := w.wait(); n != 1 {
		t.Errorf("%d events", n)
	}
}
