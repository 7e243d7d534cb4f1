package splice

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tunneld/tunneld/core/internal/tunnel"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestReadAheadComesFirstAndHalfCloseFromTheClient(t *testing.T) {
	eachPath(t, func(t *testing.T, start func(Tunnel), s shape) {
		s.up, s.down = []byte("up-ahead "), []byte("down-ahead ")
		r := newRig(t, start, s)
		write(t, r.client, "from client")
		if err := r.client.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		expectEOF(t, r.upstream, "up-ahead from client")
		write(t, r.upstream, "from upstream")
		r.closeUpstream(t)
		expectEOF(t, r.client, "down-ahead from upstream")
		res := r.wait(t)
		if res.Reason != tunnel.CloseClientEOF || res.Err != nil || res.Up != 20 || res.Down != 24 {
			t.Errorf("result %+v", res)
		}
		if r.relay != nil {
			<-r.relay.announced
			<-r.relay.ended
		}
	})
}

func TestHalfCloseFromTheUpstream(t *testing.T) {
	eachPath(t, func(t *testing.T, start func(Tunnel), s shape) {
		r := newRig(t, start, s)
		write(t, r.upstream, "hello")
		r.halfCloseUpstream(t)
		expectEOF(t, r.client, "hello")
		write(t, r.client, "still here")
		if err := r.client.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		expectEOF(t, r.upstream, "still here")
		r.closeUpstream(t)
		if res := r.wait(t); res.Reason != tunnel.CloseUpstreamEOF || res.Err != nil {
			t.Errorf("result %+v", res)
		}
	})
}

func TestClientResetReachesTheUpstream(t *testing.T) {
	eachPath(t, func(t *testing.T, start func(Tunnel), s shape) {
		r := newRig(t, start, s)
		write(t, r.client, "x")
		read(t, r.upstream, "x")
		r.resetClient(t)
		if res := r.wait(t); res.Reason != tunnel.CloseClientReset || res.Err == nil {
			t.Errorf("result %+v", res)
		}
		if r.relay != nil {
			<-r.relay.aborted
			return
		}
		expectReset(t, r.upstream)
	})
}

func TestUpstreamResetReachesTheClient(t *testing.T) {
	eachPath(t, func(t *testing.T, start func(Tunnel), s shape) {
		r := newRig(t, start, s)
		write(t, r.client, "x")
		read(t, r.upstream, "x")
		r.resetUpstream(t)
		if res := r.wait(t); res.Reason != tunnel.CloseUpstreamReset || res.Err == nil {
			t.Errorf("result %+v", res)
		}
		expectReset(t, r.client)
	})
}

// TestResetAfterHalfClose: the reset of a side that has ended its own direction
// is seen although there is nothing to write to it.
func TestResetAfterHalfClose(t *testing.T) {
	p := newPump(t)
	for _, relay := range []bool{false, true} {
		t.Run(fmt.Sprintf("relay=%v", relay), func(t *testing.T) {
			r := newRig(t, p.Start, shape{relay: relay})
			if err := r.client.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			expectEOF(t, r.upstream, "")
			r.resetClient(t)
			if res := r.wait(t); res.Reason != tunnel.CloseClientReset {
				t.Errorf("result %+v", res)
			}
		})
	}
}

// TestResetWhileBlocked: the client breaks off while its bytes wait for an
// upstream that does not read.
func TestResetWhileBlocked(t *testing.T) {
	p := newPump(t)
	r := newRig(t, p.Start, shape{})
	if err := r.client.SetWriteDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := r.client.Write(make([]byte, 64<<10)); err != nil {
			break // every buffer on the way is full
		}
	}
	r.resetClient(t)
	if res := r.wait(t); res.Reason != tunnel.CloseClientReset {
		t.Errorf("result %+v", res)
	}
}

// TestRelayEndWithoutAWordIsAReset: a plugin that dies looks like one that has
// ended.
func TestRelayEndWithoutAWordIsAReset(t *testing.T) {
	eachPump(t, func(t *testing.T, start func(Tunnel)) {
		r := newRig(t, start, shape{relay: true})
		write(t, r.upstream, "half an ans")
		read(t, r.client, "half an ans")
		r.relay.end(fmt.Errorf("read channel: %w", tunnel.ErrPluginDied))
		if err := r.upstream.Close(); err != nil {
			t.Fatal(err)
		}
		expectReset(t, r.client)
		if res := r.wait(t); res.Reason != tunnel.ClosePluginDied {
			t.Errorf("result %+v", res)
		}
	})
}

// TestRelayDiesAfterItsEOF: its word was that one direction had ended, not the
// tunnel.
func TestRelayDiesAfterItsEOF(t *testing.T) {
	eachPump(t, func(t *testing.T, start func(Tunnel)) {
		r := newRig(t, start, shape{relay: true})
		r.halfCloseUpstream(t)
		expectEOF(t, r.client, "")
		r.relay.end(tunnel.ErrPluginDied)
		if err := r.upstream.Close(); err != nil {
			t.Fatal(err)
		}
		if res := r.wait(t); res.Reason != tunnel.ClosePluginDied {
			t.Errorf("result %+v", res)
		}
	})
}

// TestRelayWithoutHalfClose: the far end has ended the whole tunnel while the
// client's direction is open.
func TestRelayWithoutHalfClose(t *testing.T) {
	eachPump(t, func(t *testing.T, start func(Tunnel)) {
		r := newRig(t, start, shape{relay: true})
		write(t, r.upstream, "bye")
		r.closeUpstream(t)
		expectEOF(t, r.client, "bye")
		if res := r.wait(t); res.Reason != tunnel.CloseUpstreamEOF || res.Err != nil {
			t.Errorf("result %+v", res)
		}
	})
}

func TestTimeouts(t *testing.T) {
	tests := []struct {
		name     string
		timeouts Timeouts
		half     bool
		want     tunnel.CloseReason
	}{
		{"idle", Timeouts{Idle: time.Millisecond}, false, tunnel.CloseIdle},
		{"half-close", Timeouts{HalfClose: time.Millisecond}, true, tunnel.CloseHalfClosed},
		{"lifetime", Timeouts{Lifetime: time.Millisecond}, false, tunnel.CloseLifetime},
	}
	eachPump(t, func(t *testing.T, start func(Tunnel)) {
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				t.Parallel()
				r := newRig(t, start, shape{timeouts: tt.timeouts})
				if tt.half {
					if err := r.client.CloseWrite(); err != nil {
						t.Fatal(err)
					}
				}
				if res := r.wait(t); res.Reason != tt.want {
					t.Errorf("result %+v", res)
				}
				expectReset(t, r.client)
			})
		}
	})
}

func TestKill(t *testing.T) {
	p := newPump(t)
	var rigs []*rig
	for i := range 10 {
		rigs = append(rigs, newRig(t, p.Start, shape{relay: i%2 == 0}))
	}
	if p.Active() != len(rigs) {
		t.Fatalf("%d active", p.Active())
	}
	p.Kill()
	for _, r := range rigs {
		if res := r.wait(t); res.Reason != tunnel.CloseKilled {
			t.Errorf("result %+v", res)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := p.Wait(ctx); err != nil || p.Active() != 0 {
		t.Fatalf("%v, %d active", err, p.Active())
	}
}

func TestWaitIsBounded(t *testing.T) {
	p := newPump(t)
	newRig(t, p.Start, shape{})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := p.Wait(ctx); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

func TestBulkBothWays(t *testing.T) {
	const size = 16 << 20
	eachPath(t, func(t *testing.T, start func(Tunnel), s shape) {
		r := newRig(t, start, s)
		var wg sync.WaitGroup
		sums := make([][sha256.Size]byte, 4)
		send := func(c halfCloser, seed uint64, sum *[sha256.Size]byte, end func()) {
			rnd := rand.NewChaCha8([32]byte{byte(seed)})
			h := sha256.New()
			if _, err := io.CopyN(io.MultiWriter(c, h), rnd, size); err != nil {
				t.Errorf("send: %v", err)
			}
			h.Sum(sum[:0])
			end()
		}
		receive := func(c net.Conn, sum *[sha256.Size]byte) {
			h := sha256.New()
			if n, err := io.Copy(h, c); err != nil || n != size {
				t.Errorf("received %d bytes, %v", n, err)
			}
			h.Sum(sum[:0])
		}
		wg.Go(func() {
			send(r.client, 1, &sums[0], func() {
				if err := r.client.CloseWrite(); err != nil {
					t.Error(err)
				}
			})
		})
		wg.Go(func() { send(r.upstream, 2, &sums[1], func() { r.halfCloseUpstream(t) }) })
		wg.Go(func() { receive(r.upstream, &sums[2]) })
		wg.Go(func() { receive(r.client, &sums[3]) })
		wg.Wait()
		if sums[0] != sums[2] || sums[1] != sums[3] {
			t.Error("bytes were changed on the way")
		}
		if r.relay != nil {
			r.relay.end(nil)
		}
		if res := r.wait(t); res.Err != nil || res.Up != size || res.Down != size {
			t.Errorf("result %+v", res)
		}
	})
}
