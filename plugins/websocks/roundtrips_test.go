package websocks

import (
	"net"
	"sync"
	"testing"
	"time"

	"github.com/tunneld/tunneld/plugins/websocks/websocksemu"
)

// distance is how long a turn takes.
const distance = 20 * time.Millisecond

// distant is a far end that a turn of the conversation takes time to: what the
// client says after it has heard something is passed on a distance later.
type distant struct {
	mu          sync.Mutex
	connections int
	turns       int
	clientSpoke bool
}

// TestRoundTrips counts the turns of a dial: TCP, the upgrade, and one more for
// everything behind it.
func TestRoundTrips(t *testing.T) {
	s := emulate(t, websocksemu.Options{Users: map[string]string{"alice": "secret"}})
	l := listen(t)
	d := new(distant)
	var wait sync.WaitGroup
	wait.Go(func() { d.serve(l, s.Address(), &wait) })
	t.Cleanup(func() {
		_ = l.Close()
		_ = s.Close()
		wait.Wait()
	})

	begin := time.Now()
	c := mustDial(t, values{"url": "ws://" + l.Addr().String(), "username": "alice", "password": "secret"}, websocksemu.EchoTarget)
	took := time.Since(begin)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.connections != 1 || d.turns != 2 {
		t.Errorf("%d connections and %d turns, want 1 and 2", d.connections, d.turns)
	}
	if took < 2*distance {
		t.Errorf("the dial took %s, which is less than two turns", took)
	}
	_ = c.Close()
}

func (d *distant) serve(l net.Listener, to string, wait *sync.WaitGroup) {
	for {
		near, err := l.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("tcp", to)
		if err != nil {
			_ = near.Close()
			return
		}
		d.mu.Lock()
		d.connections++
		d.mu.Unlock()
		wait.Go(func() { d.pass(far, near, true) })
		wait.Go(func() { d.pass(near, far, false) })
	}
}

// pass copies one direction until it ends, and closes both then.
func (d *distant) pass(to, from net.Conn, fromClient bool) {
	defer to.Close()
	defer from.Close()
	b := make([]byte, 64<<10)
	for {
		n, err := from.Read(b)
		if n > 0 {
			d.mu.Lock()
			turn := fromClient && !d.clientSpoke
			d.clientSpoke = fromClient
			if turn {
				d.turns++
			}
			d.mu.Unlock()
			if turn {
				<-time.After(distance)
			}
			if _, err := to.Write(b[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
