package splice

import (
	"errors"
	"fmt"
	"net"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tunneld/tunneld/core/internal/tunnel"
)

// slotRig is a tunnel in a worker that does not run: the test does what it would.
type slotRig struct {
	*rig
	w *worker
	s *slot
}

// newSlotRig returns a tunnel in some state. Its client has sent bytes that wait in the
// client's direction, unless that is past them.
func newSlotRig(t *testing.T, state tunnelState, dirs [2]dirState) *slotRig {
	t.Helper()
	var tunnels counter
	tunnels.init()
	b := &slotRig{w: &worker{tunnels: &tunnels, lines: defaultLineCheck(), buf: make([]byte, smallRead), epfd: -1, pipes: pipes{most: 1}}}
	relay := state != tunnelDirect
	far := shape{relay: relay}
	b.rig = newRig(t, func(tun Tunnel) {
		tunnels.add()
		var fds [2]int32
		for side, c := range [2]net.Conn{tun.Client.Stream, tun.Upstream.Stream} {
			var ok bool
			if fds[side], ok = takeSocket(tunnel.End{Stream: c}); !ok {
				t.Fatal("not a socket")
			}
			_ = c.Close() // a duplicate is left
			setLinger(fds[side], &unfinished)
		}
		b.s = b.w.slots.take()
		b.s.fds, b.s.relay, b.s.done = fds, tun.Upstream.Relay, tun.Done
	}, far)
	s := b.s
	s.state, s.readyTo = state, [2]bool{true, true}
	for d, at := range dirs {
		s.dirs[d].state = at
	}
	if dirs[client] <= dirEOF {
		s.dirs[client].rest = newRest([]byte("held"))
	}
	s.ending = &ending{reason: tunnel.CloseClientEOF}
	t.Cleanup(func() {
		b.w.helpers.Wait()
		if s.fds != [2]int32{} {
			b.w.free(s, broken)
		}
		b.w.helpers.Wait()
		b.w.pipes.closeAll()
	})
	return b
}

// situation is all that an event may change.
type situation struct {
	state       tunnelState
	dirs        [2]dirState
	held, ready bool // of the client's direction
	queue       string
	ended       string // the result
	aborted     string // what the plugin hears
	released    bool   // the relay
	client, far string // what the peers see
}

// look waits where a peer is wanted to see something.
func (b *slotRig) look(t *testing.T, want situation) situation {
	t.Helper()
	b.w.helpers.Wait()
	now := situation{state: b.s.state, held: b.s.dirs[client].holds(), ready: b.s.readyIn[client]}
	for d := range now.dirs {
		now.dirs[d] = b.s.dirs[d].state
	}
	for _, m := range b.w.queue {
		now.queue += fmt.Sprintf("%d: %v;", m.kind, m.err)
	}
	select {
	case r := <-b.result:
		now.ended = fmt.Sprintf("%s, %v", r.Reason, r.Err)
	default:
	}
	if b.relay != nil {
		select {
		case now.aborted = <-b.relay.aborted:
		default:
		}
		select {
		case <-b.relay.ended:
			now.released = true
		default:
		}
	}
	now.client, now.far = peerSees(t, b.client, want.client), peerSees(t, b.upstream, want.far)
	return now
}

const seesNothing = "nothing"

func peerSees(t *testing.T, c net.Conn, want string) string {
	t.Helper()
	raw, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	sees := ""
	err = raw.Control(func(fd uintptr) {
		if want != seesNothing {
			p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
			for err := error(unix.EINTR); errors.Is(err, unix.EINTR); {
				_, err = unix.Poll(p, 10_000)
			}
		}
		n, _, err := unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_DONTWAIT|unix.MSG_PEEK)
		switch {
		case errors.Is(err, unix.EAGAIN):
			sees = seesNothing
		case err != nil:
			sees = "reset"
		case n == 0:
			sees = "end"
		default:
			sees = "bytes"
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return sees
}

// TestEveryCellOfADirection has each event happen in each state of each direction of
// each kind of tunnel, also those that cannot.
func TestEveryCellOfADirection(t *testing.T) {
	for _, kind := range []tunnelState{tunnelDirect, tunnelRelay} {
		for d := range 2 {
			for state := range dirStates {
				for e := range dirEvents {
					name := fmt.Sprintf("%s/%s/%s/%s", tunnelStateNames[kind], sideNames[d], dirStateNames[state], dirEventNames[e])
					t.Run(name, func(t *testing.T) {
						dirs := [2]dirState{}
						dirs[d] = state
						b := newSlotRig(t, kind, dirs)
						if kind == tunnelRelay {
							b.relay.eof() // what ConfirmEOF waits for
						}
						want := b.look(t, situation{client: seesNothing, far: seesNothing})
						b.w.directionEvent(b.s, d, e)
						step := dirTable[state][e]
						if step.do != never {
							want.dirs[d] = step.next
						}
						far := [2]*string{&want.far, &want.client}[d]
						switch step.do {
						case doPass:
							if kind == tunnelDirect {
								want.dirs[d], *far = dirDone, "end"
							} else {
								want.queue = fmt.Sprintf("%d: <nil>;", [2]messageKind{msgAnnounced, msgConfirmed}[d])
							}
						case doShut:
							want.dirs[d], *far = dirDone, "end"
						case doDrop:
							if d == client {
								want.held, want.ready = false, true
							}
						}
						if got := b.look(t, want); got != want {
							t.Errorf("%+v,\nwant %+v", got, want)
						}
					})
				}
			}
		}
	}
}

// TestEveryCellOfATunnel is the same of the tunnel's own states.
func TestEveryCellOfATunnel(t *testing.T) {
	cause := errors.New("a cause")
	for state := range tunnelStates {
		for e := range tunnelEvents {
			t.Run(tunnelStateNames[state]+"/"+tunnelEventNames[e], func(t *testing.T) {
				b := newSlotRig(t, state, [2]dirState{dirOpen, dirDone})
				if b.relay != nil {
					b.relay.end(nil) // what ConfirmEnd waits for
				}
				want := b.look(t, situation{client: seesNothing, far: seesNothing})
				b.w.tunnelEvent(b.s, e, ending{tunnel.CloseIdle, cause})
				step := tunnelTable[state][e]
				if step.do != never {
					want.state = step.next
				}
				over := func(sees string) {
					want.client, want.far, want.held, want.dirs = sees, sees, false, [2]dirState{}
					if b.relay != nil {
						want.far, want.released = "end", true // of a socketpair
					}
				}
				switch step.do {
				case doAsk:
					want.queue = fmt.Sprintf("%d: <nil>;", msgEnded)
				case doSettle:
					// The turn finds nothing to drop, and both directions over.
					want.state = tunnelFree
					over("end")
					want.ended = "client_eof, <nil>"
				case doClose:
					over("end")
					want.ended = "client_eof, <nil>"
				case doReset:
					over("reset")
					want.ended = "idle, a cause"
				case doAbort:
					want.aborted = "a cause"
					want.queue = fmt.Sprintf("%d: <nil>;", msgAborted)
				case doRelease:
					over("reset")
					want.ended = "client_eof, <nil>"
				}
				if got := b.look(t, want); got != want {
					t.Errorf("%+v,\nwant %+v", got, want)
				}
			})
		}
	}
}

// TestBrokenTunnelTakesNoAnswers has the plugin answer what was asked before.
func TestBrokenTunnelTakesNoAnswers(t *testing.T) {
	for kind := msgAnnounced; kind <= msgEnded; kind++ {
		for _, err := range []error{nil, errors.New("an error")} {
			b := newSlotRig(t, tunnelBroken, [2]dirState{dirPassing, dirPassing})
			want := b.look(t, situation{client: seesNothing, far: seesNothing})
			b.w.message(message{kind: kind, key: b.s.key(client), err: err})
			if got := b.look(t, want); got != want {
				t.Errorf("message %d, %v: %+v,\nwant %+v", kind, err, got, want)
			}
		}
	}
}
