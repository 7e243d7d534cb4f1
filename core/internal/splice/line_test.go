package splice

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tunneld/tunneld/core/internal/tunnel"
	"github.com/tunneld/tunneld/internal/sockopt"
)

// testLimit is the dead line's limit in these tests: the pump looks in each tick.
const testLimit = 2 * time.Second

type acksReader func(fd uintptr) (sockopt.Acks, bool)

// twice is how many looks at the two sockets of a tunnel take 4 s: twice the limit.
const twice = 2 * 5

// eachLook is eachPump with a reader of acknowledgements. looks waits for so many
// calls of it.
func eachLook(t *testing.T, acks acksReader, test func(t *testing.T, start func(Tunnel), looks func(n int))) {
	for _, portable := range []bool{false, true} {
		t.Run(fmt.Sprintf("portable=%t", portable), func(t *testing.T) {
			t.Parallel()
			looked := make(chan struct{}, 1024)
			p, err := newWith(&lineCheck{limit: testLimit, every: 1, acks: func(fd uintptr) (sockopt.Acks, bool) {
				select {
				case looked <- struct{}{}:
				default:
				}
				return acks(fd)
			}})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := p.Close(); err != nil {
					t.Error(err)
				}
			})
			start := p.Start
			if portable {
				start = func(tun Tunnel) { p.tunnels.add(); p.portable.start(tun) }
			}
			test(t, start, func(n int) {
				for range n {
					<-looked
				}
			})
		})
	}
}

// TestDeadLineEndsTheTunnel: on either side, on either path, and both ends learn of
// it as far as they can be reached.
func TestDeadLineEndsTheTunnel(t *testing.T) {
	// Each TCP socket has sent something that nobody acknowledges.
	dead := func(uintptr) (sockopt.Acks, bool) { return sockopt.Acks{Unacked: 1, Last: time.Hour}, true }
	eachLook(t, dead, func(t *testing.T, start func(Tunnel), _ func(int)) {
		for _, relay := range []bool{false, true} {
			r := newRig(t, start, shape{relay: relay})
			write(t, r.client, "hello")
			read(t, r.upstream, "hello")
			res := r.wait(t)
			if res.Reason != tunnel.CloseDeadLine || res.Err == nil || !strings.HasPrefix(res.Err.Error(), "client: no acknowledgement for 2s") {
				t.Errorf("result %+v", res)
			}
			expectReset(t, r.client)
			if relay {
				if said := <-r.relay.aborted; !strings.Contains(said, "the line is dead") {
					t.Errorf("the plugin heard %q", said)
				}
			} else {
				expectReset(t, r.upstream)
			}
		}
	})
}

// TestLivingLinesAreKept has peers that answer now and then, long-idle ones that
// have just been sent something, and sockets that tell nothing.
func TestLivingLinesAreKept(t *testing.T) {
	var mu sync.Mutex
	odd := map[uintptr]uint32{}
	for name, acks := range map[string]acksReader{
		"a closed window that answers its probes": func(uintptr) (sockopt.Acks, bool) {
			return sockopt.Acks{Unacked: 1, Last: testLimit - time.Millisecond}, true
		},
		"idle for long, and sending now and then": func(fd uintptr) (sockopt.Acks, bool) {
			mu.Lock()
			defer mu.Unlock()
			odd[fd]++
			return sockopt.Acks{Unacked: odd[fd] % 2, Last: time.Hour}, true
		},
		"nothing to tell": func(uintptr) (sockopt.Acks, bool) { return sockopt.Acks{Unacked: 1, Last: time.Hour}, false },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			eachLook(t, acks, func(t *testing.T, start func(Tunnel), looks func(int)) {
				r := newRig(t, start, shape{})
				looks(twice)
				write(t, r.client, "still")
				read(t, r.upstream, "still")
				write(t, r.upstream, "here")
				read(t, r.client, "here")
			})
		})
	}
}
