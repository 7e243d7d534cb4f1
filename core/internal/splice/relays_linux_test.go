package splice

import (
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/tunneld/tunneld/core/internal/tunnel"
	"github.com/tunneld/tunneld/internal/pluginwire"
)

// ends are the far ends of a tunnel in the test's hands, by side, and the plugins of
// those that are relays.
type ends struct {
	far    [2]halfCloser
	relays [2]*fakeRelay
	result chan Result

	traffic tunnel.Traffic
}

// withRelays joins two connections, of which some are relays.
func withRelays(t *testing.T, start func(Tunnel), relays [2]bool) *ends {
	t.Helper()
	e := &ends{result: make(chan Result, 1)}
	tun := Tunnel{Traffic: &e.traffic, Done: func(r Result) { e.result <- r }}
	for side, end := range []*tunnel.End{&tun.Client, &tun.Upstream} {
		if !relays[side] {
			far, near := tcpPair(t)
			e.far[side], end.Stream = far, near
		} else {
			near, far, err := pluginwire.RelayPair()
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { far.Close() })
			if err := far.SetDeadline(time.Now().Add(60 * time.Second)); err != nil {
				t.Fatal(err)
			}
			e.relays[side] = newFakeRelay()
			e.far[side], end.Stream, end.Relay, end.Plugin = far, near, e.relays[side], sideNames[side]
		}
		end.ReadAhead = []byte("ahead of " + sideNames[side])
		if err := end.Stream.SetDeadline(time.Time{}); err != nil {
			t.Fatal(err)
		}
	}
	start(tun)
	return e
}

// finish ends what a side sends, cleanly.
func (e *ends) finish(t *testing.T, side int) {
	t.Helper()
	if r := e.relays[side]; r != nil {
		r.eof()
	}
	if err := e.far[side].CloseWrite(); err != nil {
		t.Fatal(err)
	}
}

// wait returns the tunnel's result, once every plugin was told that it has ended.
func (e *ends) wait(t *testing.T) Result {
	t.Helper()
	r := &rig{result: e.result}
	res := r.wait(t)
	for _, relay := range e.relays {
		if relay == nil {
			continue
		}
		select {
		case <-relay.ended:
		default:
			t.Error("a plugin does not know that the tunnel has ended")
		}
	}
	return res
}

// eachPlace runs test with relays at the client's side, and at both, on either pump.
func eachPlace(t *testing.T, test func(t *testing.T, start func(Tunnel), relays [2]bool)) {
	eachPump(t, func(t *testing.T, start func(Tunnel)) {
		for _, relays := range [][2]bool{{true, false}, {true, true}} {
			t.Run(fmt.Sprintf("relays=%v", relays), func(t *testing.T) { test(t, start, relays) })
		}
	})
}

// TestOneRelayIsAWorkers: at whichever side it is.
func TestOneRelayIsAWorkers(t *testing.T) {
	for _, relays := range [][2]bool{{true, false}, {false, true}, {true, true}} {
		p := newPump(t)
		withRelays(t, p.Start, relays)
		p.portable.mu.Lock()
		flows := len(p.portable.flows)
		p.portable.mu.Unlock()
		if both := relays == [2]bool{true, true}; both != (flows == 1) {
			t.Errorf("relays=%v: %d tunnels are pumped by goroutines", relays, flows)
		}
	}
}

// TestRelayAtTheClientsSide: both directions, and each half-close, which the plugins
// learn of before they see it.
func TestRelayAtTheClientsSide(t *testing.T) {
	eachPlace(t, func(t *testing.T, start func(Tunnel), relays [2]bool) {
		for first := range 2 {
			t.Run(sideNames[first]+" ends first", func(t *testing.T) {
				e := withRelays(t, start, relays)
				for side := range 2 {
					write(t, e.far[1-side], "hello")
					read(t, e.far[side], "ahead of "+sideNames[1-side]+"hello")
				}
				for _, side := range []int{first, 1 - first} {
					e.finish(t, side)
					expectEOF(t, e.far[1-side], "")
					if r := e.relays[1-side]; r != nil {
						select {
						case <-r.announced:
						default:
							t.Errorf("the end was not announced to the plugin of the %s", sideNames[1-side])
						}
					}
				}
				for _, r := range e.relays {
					if r != nil {
						r.end(nil)
					}
				}
				up, down := int64(len("ahead of clienthello")), int64(len("ahead of upstreamhello"))
				if res := e.wait(t); res != (Result{Reason: eofReasons[first], Up: up, Down: down}) {
					t.Errorf("%+v", res)
				}
				if c := &e.traffic; c.Up.Copied.Load() != up || c.Down.Copied.Load() != down {
					t.Errorf("%d bytes up, %d down were counted", c.Up.Copied.Load(), c.Down.Copied.Load())
				}
			})
		}
	})
}

// TestClientsRelayIsBrokenOff: an end of file without the word, and a plugin's death,
// are no clean ends; the other side is reset, or its plugin learns of it.
func TestClientsRelayIsBrokenOff(t *testing.T) {
	for name, tt := range map[string]struct {
		word error
		want tunnel.CloseReason
	}{
		"broken off":  {errors.New("the client has reset its connection"), tunnel.CloseClientReset},
		"plugin died": {fmt.Errorf("%w: killed", tunnel.ErrPluginDied), tunnel.ClosePluginDied},
	} {
		t.Run(name, func(t *testing.T) {
			eachPlace(t, func(t *testing.T, start func(Tunnel), relays [2]bool) {
				e := withRelays(t, start, relays)
				read(t, e.far[upstream], "ahead of client")
				read(t, e.far[client], "ahead of upstream")
				e.relays[client].end(tt.word)
				if err := e.far[client].Close(); err != nil {
					t.Fatal(err)
				}
				e.expectBroken(t, upstream)
				if res := e.wait(t); res.Reason != tt.want || !errors.Is(res.Err, tt.word) {
					t.Errorf("%+v", res)
				}
			})
		})
	}
}

// expectBroken expects that a side sees no clean end.
func (e *ends) expectBroken(t *testing.T, side int) {
	t.Helper()
	if r := e.relays[side]; r != nil {
		<-r.aborted
		if b, err := io.ReadAll(e.far[side]); len(b) > 0 || err != nil {
			t.Errorf("read %q, %v", b, err)
		}
		return
	}
	expectReset(t, e.far[side])
}

// TestClientsRelayIsAborted: the plugin learns of a reset, and of a kill, before the
// socketpair ends.
func TestClientsRelayIsAborted(t *testing.T) {
	t.Run("reset", func(t *testing.T) {
		e := withRelays(t, newPump(t).Start, [2]bool{true, false})
		read(t, e.far[upstream], "ahead of client")
		read(t, e.far[client], "ahead of upstream")
		if err := e.far[upstream].(*net.TCPConn).SetLinger(0); err != nil {
			t.Fatal(err)
		}
		if err := e.far[upstream].Close(); err != nil {
			t.Fatal(err)
		}
		e.expectBroken(t, client)
		if res := e.wait(t); res.Reason != tunnel.CloseUpstreamReset {
			t.Errorf("%+v", res)
		}
	})
	for _, relays := range [][2]bool{{true, false}, {true, true}} {
		t.Run(fmt.Sprintf("killed, relays=%v", relays), func(t *testing.T) {
			p := newPump(t)
			e := withRelays(t, p.Start, relays)
			read(t, e.far[upstream], "ahead of client")
			read(t, e.far[client], "ahead of upstream")
			p.Kill()
			for side := range 2 {
				e.expectBroken(t, side)
			}
			if res := e.wait(t); res.Reason != tunnel.CloseKilled {
				t.Errorf("%+v", res)
			}
		})
	}
}

// TestClientsPluginEndsTheTunnel: once it has, cleanly, what the upstream still sends
// has nowhere to go, and the tunnel does not wait for its end.
func TestClientsPluginEndsTheTunnel(t *testing.T) {
	eachPlace(t, func(t *testing.T, start func(Tunnel), relays [2]bool) {
		t.Parallel() // what is dropped is waited for
		e := withRelays(t, start, relays)
		read(t, e.far[upstream], "ahead of client")
		read(t, e.far[client], "ahead of upstream")
		write(t, e.far[client], "last")
		e.relays[client].eof()
		e.relays[client].end(nil)
		if err := e.far[client].Close(); err != nil {
			t.Fatal(err)
		}
		read(t, e.far[upstream], "last")
		expectEOF(t, e.far[upstream], "")
		if r := e.relays[upstream]; r != nil {
			r.end(nil)
		}
		if res := e.wait(t); res.Reason != tunnel.CloseClientEOF || res.Err != nil {
			t.Errorf("%+v", res)
		}
	})
}
