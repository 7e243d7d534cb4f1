package splice

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tunneld/tunneld/core/internal/tunnel"
)

// sendUrgent sends one byte as urgent data.
func sendUrgent(t *testing.T, c *net.TCPConn, b byte) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var sendErr error
	err = raw.Write(func(fd uintptr) bool {
		sendErr = unix.Sendto(int(fd), []byte{b}, unix.MSG_OOB|unix.MSG_NOSIGNAL, nil)
		return !errors.Is(sendErr, unix.EAGAIN)
	})
	if err := errors.Join(err, sendErr); err != nil {
		t.Fatal(err)
	}
}

// TestUrgentDataKeepsItsPlace: neither a read nor a splice goes past urgent data
// in one go, and at it splice says "end" where a FIN has come.
func TestUrgentDataKeepsItsPlace(t *testing.T) {
	want := append(bytes.Repeat([]byte("a"), 40<<10), 'U')
	want = append(want, bytes.Repeat([]byte("b"), 40<<10)...)
	send := func(t *testing.T, c *net.TCPConn) {
		t.Helper()
		write(t, c, string(want[:40<<10]))
		sendUrgent(t, c, 'U')
		write(t, c, string(want[40<<10+1:]))
	}
	eachPump(t, func(t *testing.T, start func(Tunnel)) {
		t.Run("all with the end", func(t *testing.T) {
			r := newRig(t, start, shape{before: func(r *rig, _, _ net.Conn) {
				send(t, r.client)
				if err := r.client.CloseWrite(); err != nil {
					t.Fatal(err)
				}
			}})
			expectEOF(t, r.upstream, string(want))
			r.closeUpstream(t)
			if res := r.wait(t); res.Err != nil || res.Up != int64(len(want)) {
				t.Errorf("result %+v", res)
			}
		})
		t.Run("in between", func(t *testing.T) {
			r := newRig(t, start, shape{})
			for range 20 {
				send(t, r.client)
				read(t, r.upstream, string(want))
			}
			sendUrgent(t, r.client, 'V')
			read(t, r.upstream, "V")
		})
	})
}

// TestPluginEndsWhileTheClientSends: closing a socket with unread bytes resets its
// peer, which would take from the client what it has yet to receive.
func TestPluginEndsWhileTheClientSends(t *testing.T) {
	eachPump(t, func(t *testing.T, start func(Tunnel)) {
		r := newRig(t, start, shape{relay: true})
		body := bytes.Repeat([]byte("0123456789abcdef"), 2<<20/16)
		write(t, r.client, "a request")
		var sending sync.WaitGroup
		defer sending.Wait()
		sending.Go(func() {
			for {
				if _, err := r.client.Write(make([]byte, 32<<10)); err != nil {
					return // closed by the test
				}
			}
		})
		if _, err := r.upstream.Write(body); err != nil {
			t.Fatal(err)
		}
		r.closeUpstream(t)
		got, err := io.ReadAll(r.client)
		if err != nil || !bytes.Equal(got, body) {
			t.Errorf("%d bytes, %v; want %d and a clean end", len(got), err, len(body))
		}
		if err := r.client.Close(); err != nil {
			t.Error(err)
		}
		r.wait(t)
	})
}

// TestWhatIsLeftIsSent: what is still to be sent when the tunnel has ended is sent, to
// either side.
func TestWhatIsLeftIsSent(t *testing.T) {
	body := bytes.Repeat([]byte("x"), 1<<20)
	eachPath(t, func(t *testing.T, start func(Tunnel), s shape) {
		r := newRig(t, start, s)
		if err := r.client.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		expectEOF(t, r.upstream, "")
		write(t, r.upstream, string(body))
		r.closeUpstream(t)
		if res := r.wait(t); res.Err != nil || res.Down != int64(len(body)) {
			t.Errorf("result %+v", res)
		}
		expectEOF(t, r.client, string(body))
	})
	eachPump(t, func(t *testing.T, start func(Tunnel)) {
		r := newRig(t, start, shape{})
		r.halfCloseUpstream(t)
		expectEOF(t, r.client, "")
		uploadAtTheEnd(t, r)
	})
}

// uploadAtTheEnd sends a megabyte, which the far end reads when the tunnel is gone: the
// upstream has ended before.
func uploadAtTheEnd(t *testing.T, r *rig) {
	t.Helper()
	body := strings.Repeat("x", 1<<20)
	write(t, r.client, body)
	if err := r.client.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if res := r.wait(t); res.Err != nil || res.Up != int64(len(body)) {
		t.Errorf("result %+v", res)
	}
	expectEOF(t, r.upstream, body)
}

// TestResetThoughACopyIsHeld: the kernel sends nothing at close as long as somebody
// holds the socket as well.
func TestResetThoughACopyIsHeld(t *testing.T) {
	p := newPump(t)
	for _, s := range []shape{{}, {relay: true}} {
		s.before = func(_ *rig, client, upstream net.Conn) {
			for _, c := range []net.Conn{client, upstream} {
				keepCopy(t, c)
			}
		}
		r := newRig(t, p.Start, s)
		write(t, r.client, "x")
		read(t, r.upstream, "x")
		p.Kill()
		r.wait(t)
		expectReset(t, r.client)
		if s.relay {
			expectEOF(t, r.upstream, "")
		} else {
			expectReset(t, r.upstream)
		}
	}
}

// TestPipesAreBounded: a direction whose sink is slow keeps its pipe.
func TestPipesAreBounded(t *testing.T) {
	const most, size = 2, 4 << 20
	p := newPump(t)
	for _, w := range p.kernel.workers {
		w.pipes.most = most
	}
	limit := most * len(p.kernel.workers)
	body := bytes.Repeat([]byte("0123456789abcdef"), size/16)
	var rigs []*rig
	var sending sync.WaitGroup
	for range 4 * limit {
		r := newRig(t, p.Start, shape{})
		rigs = append(rigs, r)
		sending.Go(func() {
			if _, err := r.upstream.Write(body); err != nil {
				t.Error(err)
			}
			r.halfCloseUpstream(t)
		})
	}
	// Each has begun, and none of their clients reads on.
	for _, r := range rigs {
		read(t, r.client, string(body[:1<<20]))
		if s := p.Stats(); s.PipesInUse+s.PipesIdle > limit {
			t.Fatalf("%+v, want no more than %d pipes", s, limit)
		}
	}
	for _, r := range rigs {
		expectEOF(t, r.client, string(body[1<<20:]))
		if err := r.client.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if res := r.wait(t); res.Err != nil || res.Down != size {
			t.Errorf("result %+v", res)
		}
	}
	sending.Wait()
	if s := p.Stats(); s.PipesInUse != 0 || s.PipesIdle > limit || s.BuffersInUse != 0 {
		t.Errorf("afterwards %+v", s)
	}
}

// TestCloseWaitsForHelpers: what speaks to a plugin may take longer than the
// tunnel, and tells the worker afterwards.
func TestCloseWaitsForHelpers(t *testing.T) {
	p, err := New()
	if err != nil {
		t.Fatal(err)
	}
	var through atomic.Bool
	gate := make(chan struct{})
	r := newRig(t, p.Start, shape{relay: true, before: func(r *rig, _, _ net.Conn) {
		r.relay.announce = func() error {
			<-gate
			through.Store(true)
			return nil
		}
	}})
	if err := r.client.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	<-r.relay.announced
	p.Kill()
	r.wait(t)
	time.AfterFunc(50*time.Millisecond, func() { close(gate) })
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if !through.Load() {
		t.Error("a helper was left behind")
	}
	p.Kill() // too late, and harmless
}

// TestEndIsBeforeTheAnnouncement: the plugin has ended the tunnel cleanly, and
// takes no announcement any more.
func TestEndIsBeforeTheAnnouncement(t *testing.T) {
	eachPump(t, func(t *testing.T, start func(Tunnel)) {
		r := newRig(t, start, shape{relay: true, before: func(r *rig, _, _ net.Conn) {
			r.relay.announce = func() error { return errors.New("nobody listens") }
			r.relay.end(nil)
		}})
		write(t, r.upstream, "bye")
		if err := r.client.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		<-r.relay.announced
		if err := r.upstream.Close(); err != nil {
			t.Fatal(err)
		}
		expectEOF(t, r.client, "bye")
		if res := r.wait(t); res.Err != nil {
			t.Errorf("result %+v", res)
		}
	})
}

// TestKillDoesNotWaitForPlugins: a plugin that is slow to hear of an end holds up
// no other tunnel.
func TestKillDoesNotWaitForPlugins(t *testing.T) {
	gate := make(chan struct{})
	opened := sync.OnceFunc(func() { close(gate) })
	defer opened()
	slow := shape{relay: true, before: func(r *rig, _, _ net.Conn) { r.relay.abort = func() { <-gate } }}
	var p *Pump
	start := map[string]func(Tunnel){
		"kernel":   func(tun Tunnel) { p.Start(tun) },
		"portable": func(tun Tunnel) { p.tunnels.add(); p.portable.start(tun) },
	}
	p = newPump(t)
	for name, start := range start {
		one, other := newRig(t, start, slow), newRig(t, start, shape{})
		p.Kill()
		if res := other.wait(t); res.Reason != tunnel.CloseKilled {
			t.Errorf("%s: %+v", name, res)
		}
		defer one.wait(t)
	}
	opened()
}

// TestTooLateToBreakOff: a timeout that comes at the very end changes nothing.
func TestTooLateToBreakOff(t *testing.T) {
	p := newPump(t)
	var flows []*flow
	r := newRig(t, func(tun Tunnel) {
		p.tunnels.add()
		p.portable.start(tun)
		p.portable.each(func(f *flow) { flows = append(flows, f) })
	}, shape{relay: true})
	if err := r.client.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	expectEOF(t, r.upstream, "")
	r.closeUpstream(t)
	if res := r.wait(t); res.Err != nil {
		t.Errorf("result %+v", res)
	}
	flows[0].breakOff(tunnel.CloseIdle, errors.New("idle"))
	select {
	case <-r.relay.aborted:
		t.Error("the relay was aborted after its end")
	default:
	}
}

// politeConn says goodbye when it is closed, as TLS does.
type politeConn struct{ *net.TCPConn }

func (c politeConn) NetConn() net.Conn { return c.TCPConn }

func (c politeConn) Close() error {
	_, err := io.WriteString(c.TCPConn, "goodbye")
	return errors.Join(err, c.TCPConn.Close())
}

// TestResetOfAWrapper: breaking off says no goodbye.
func TestResetOfAWrapper(t *testing.T) {
	p := newPump(t)
	near, far := tcpPair(t)
	upFar, upNear := tcpPair(t)
	p.Start(Tunnel{Client: tunnel.End{Stream: politeConn{near}}, Upstream: tunnel.End{Stream: upNear}})
	write(t, far, "x")
	read(t, upFar, "x")
	p.Kill()
	expectReset(t, far)
	expectReset(t, upFar)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := p.Wait(ctx); err != nil {
		t.Error(err)
	}
}

// TestResetThatAWriteWasTold: the system tells of a reset once. The direction that
// reads is not to take what it sees then for a clean end.
func TestResetThatAWriteWasTold(t *testing.T) {
	near, far := tcpPair(t)
	if err := far.SetLinger(0); err != nil {
		t.Fatal(err)
	}
	if err := far.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := near.Write([]byte("x")); err == nil {
		t.Fatal("a write after a reset went well")
	}
	if _, err := near.Read(make([]byte, 1)); err != io.EOF {
		t.Fatalf("read: %v", err)
	}
	if f := newFlow(Tunnel{Client: tunnel.End{Stream: near}}, nil); f.sides[client].cut() == nil {
		t.Error("the reset looks like an end")
	}
	near, far = tcpPair(t)
	if err := far.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	expectEOF(t, near, "")
	if f := newFlow(Tunnel{Client: tunnel.End{Stream: near}}, nil); f.sides[client].cut() != nil {
		t.Error("an end looks like a reset")
	}
}
