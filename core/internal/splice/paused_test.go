package splice

import (
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tunneld/tunneld/core/internal/tunnel"
)

// forever is how long a byte waits at a byte a second after this was read ahead.
var forever = make([]byte, 1<<16)

// pausedRig returns a tunnel of which one direction waits for ever to move an x.
func pausedRig(t *testing.T, p *Pump, start func(Tunnel), way int, s shape) (*rig, *Rate) {
	t.Helper()
	block, rates := limit(p, [2]Bandwidth{{Up: 1}, {Down: 1}}[way])
	s.rates = rates
	if way == client {
		s.up = forever
	} else {
		s.down = forever
	}
	waiting := p.Stats().Paused
	r := newRig(t, start, s)
	from, to := halfCloser(r.client), r.upstream
	if way == upstream {
		from, to = to, from
	}
	read(t, to, string(forever))
	write(t, from, "x")
	awaitPaused(t, p, waiting+1)
	return r, block
}

// TestChangesTakeNothing: who waits is in the queue once, however often another limit changes.
func TestChangesTakeNothing(t *testing.T) {
	const rate, changes = 1 << 10, 100
	eachPumpOf(t, func(t *testing.T, p *Pump, start func(Tunnel)) {
		block, _ := limit(p, Bandwidth{TotalUp: rate})
		other := &Rate{}
		var traffic tunnel.Traffic
		r := newRig(t, start, shape{rates: NewRates(block, other), up: forever, traffic: &traffic})
		read(t, r.upstream, string(forever))
		queue := block.total[client].Load()
		before := queue.next.Load()
		write(t, r.client, string(make([]byte, rate)))
		for i := range int64(changes) {
			awaitPaused(t, p, 1)
			before := traffic.Up.Paused.Load()
			p.Limit(map[*Rate]Bandwidth{other: {TotalUp: 1<<20 + i}})
			for traffic.Up.Paused.Load() == before { // until it begins to wait anew
				time.Sleep(time.Millisecond)
			}
		}
		awaitPaused(t, p, 1)
		if took := time.Duration(queue.next.Load() - before); took > 2*time.Second {
			t.Errorf("a second's bytes hold %s of the queue", took)
		}
	})
}

// awaitPaused waits until that many directions wait for bandwidth.
func awaitPaused(t *testing.T, p *Pump, n int) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); p.Stats().Paused != n; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d directions wait for bandwidth, want %d", p.Stats().Paused, n)
		}
	}
}

// TestPausedTunnelIsKilled, and does not wait for its turn.
func TestPausedTunnelIsKilled(t *testing.T) {
	eachPumpOf(t, func(t *testing.T, p *Pump, start func(Tunnel)) {
		up, _ := pausedRig(t, p, start, client, shape{})
		down, _ := pausedRig(t, p, start, upstream, shape{relay: true})
		p.Kill()
		for _, r := range []*rig{up, down} {
			if res := r.wait(t); res.Reason != tunnel.CloseKilled {
				t.Errorf("result %+v", res)
			}
		}
	})
}

// TestPluginEndsPausedTunnel: what waits for bandwidth has nowhere to go any more.
func TestPluginEndsPausedTunnel(t *testing.T) {
	eachPumpOf(t, func(t *testing.T, p *Pump, start func(Tunnel)) {
		r, _ := pausedRig(t, p, start, client, shape{relay: true, before: func(r *rig, _, _ net.Conn) {
			if err := r.client.SetReadBuffer(64 << 10); err != nil {
				t.Fatal(err)
			}
		}})
		// The client does not read all of it yet, so the tunnel goes on.
		body := strings.Repeat("0123456789abcdef", 1<<17)
		var sending sync.WaitGroup
		defer sending.Wait()
		sending.Go(func() {
			write(t, r.upstream, body)
			r.closeUpstream(t)
		})
		read(t, r.client, body[:len(body)-1<<20])
		sending.Wait()
		awaitPaused(t, p, 0)
		expectEOF(t, r.client, body[:1<<20])
		if err := r.client.Close(); err != nil {
			t.Error(err)
		}
		if res := r.wait(t); res.Reason != tunnel.CloseUpstreamEOF || res.Err != nil {
			t.Errorf("result %+v", res)
		}
	})
}

// TestPausedTunnelIsNotSilent: neither idle nor half_close applies, until the limit is gone;
// and what comes before an end of file comes before it.
func TestPausedTunnelIsNotSilent(t *testing.T) {
	const patience = 100 * time.Millisecond
	eachPumpOf(t, func(t *testing.T, p *Pump, start func(Tunnel)) {
		var rigs [2]*rig
		var from, to [2]halfCloser
		lifted := map[*Rate]Bandwidth{}
		for way := range rigs {
			r, block := pausedRig(t, p, start, way, shape{timeouts: Timeouts{Idle: patience, HalfClose: patience}})
			rigs[way], lifted[block] = r, Bandwidth{}
			from[way], to[way] = r.client, r.upstream
			if way == upstream {
				from[way], to[way] = to[way], from[way]
			}
			if err := from[way].CloseWrite(); err != nil {
				t.Fatal(err)
			}
		}
		select {
		case res := <-rigs[client].result:
			t.Fatalf("up: it ended: %+v", res)
		case res := <-rigs[upstream].result:
			t.Fatalf("down: it ended: %+v", res)
		case <-time.After(3 * tick):
		}
		p.Limit(lifted)
		for way, r := range rigs {
			read(t, to[way], "x")
			expectEOF(t, to[way], "")
			if res := r.wait(t); res.Reason != tunnel.CloseHalfClosed {
				t.Errorf("result %+v", res)
			}
		}
	})
}
