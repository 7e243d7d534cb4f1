package splice

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tunneld/tunneld/core/internal/tunnel"
	"github.com/tunneld/tunneld/internal/nettest"
	"github.com/tunneld/tunneld/internal/pluginwire"
)

// eachPump runs test with the pump of this system and with the portable one.
func eachPump(t *testing.T, test func(t *testing.T, start func(Tunnel))) {
	eachPumpOf(t, func(t *testing.T, _ *Pump, start func(Tunnel)) { test(t, start) })
}

// eachPumpOf is eachPump for tests that need more of it.
func eachPumpOf(t *testing.T, test func(t *testing.T, p *Pump, start func(Tunnel))) {
	t.Run("kernel", func(t *testing.T) {
		p := newPump(t)
		test(t, p, p.Start)
	})
	t.Run("portable", func(t *testing.T) {
		p := newPump(t)
		test(t, p, p.startPortable)
	})
}

// startPortable is Start without the kernel's pump.
func (p *Pump) startPortable(t Tunnel) {
	p.tunnels.add()
	p.portable.start(t)
}

func newPump(t *testing.T) *Pump {
	t.Helper()
	p, err := New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

type halfCloser interface {
	net.Conn
	CloseWrite() error
}

// tcpPair returns the two ends of a TCP connection, with a deadline.
func tcpPair(t testing.TB) (near, far *net.TCPConn) {
	t.Helper()
	near, far = nettest.Pair(t)
	deadline := time.Now().Add(60 * time.Second)
	for _, c := range []net.Conn{near, far} {
		if err := c.SetDeadline(deadline); err != nil {
			t.Fatal(err)
		}
	}
	return near, far
}

// rig is a tunnel with both its far ends in the test's hands.
type rig struct {
	client   *net.TCPConn
	upstream halfCloser
	relay    *fakeRelay // nil on the direct path
	result   chan Result
}

type shape struct {
	relay    bool
	plugin   string // who handed the upstream over, or nobody
	timeouts Timeouts
	traffic  *tunnel.Traffic
	rates    *Rates
	up, down []byte // read ahead
	// before is called with the rig, and the pump's ends, before it starts.
	before func(r *rig, client, upstream net.Conn)
}

func newRig(t testing.TB, start func(Tunnel), s shape) *rig {
	t.Helper()
	client, clientNear := tcpPair(t)
	r := &rig{client: client, result: make(chan Result, 1)}
	conn := tunnel.End{ReadAhead: s.down, Plugin: s.plugin}
	if s.relay {
		near, far, err := pluginwire.RelayPair()
		if err != nil {
			t.Fatal(err)
		}
		if err := far.SetDeadline(time.Now().Add(60 * time.Second)); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { far.Close() })
		r.relay = newFakeRelay()
		conn.Stream, conn.Relay, r.upstream = near, r.relay, far
	} else {
		far, near := tcpPair(t)
		conn.Stream, r.upstream = near, far
	}
	// Only the pump holds these from here on.
	if err := clientNear.SetDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	if err := conn.Stream.SetDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	if s.before != nil {
		s.before(r, clientNear, conn.Stream)
	}
	start(Tunnel{
		Client:   tunnel.End{Stream: clientNear, ReadAhead: s.up},
		Upstream: conn,
		Timeouts: s.timeouts,
		Traffic:  s.traffic,
		Rates:    s.rates,
		Done:     func(res Result) { r.result <- res },
	})
	return r
}

func (r *rig) wait(t testing.TB) Result {
	t.Helper()
	select {
	case res := <-r.result:
		return res
	case <-time.After(30 * time.Second):
		buf := make([]byte, 1<<20)
		t.Fatalf("the tunnel did not end\n%s", buf[:runtime.Stack(buf, true)])
		return Result{}
	}
}

// endUpstream closes the upstream's far end for good, telling first that it is
// clean.
func (r *rig) closeUpstream(t testing.TB) {
	t.Helper()
	if r.relay != nil {
		r.relay.end(nil)
	}
	if err := r.upstream.Close(); err != nil {
		t.Error(err)
	}
}

func (r *rig) halfCloseUpstream(t testing.TB) {
	t.Helper()
	if r.relay != nil {
		r.relay.eof()
	}
	if err := r.upstream.CloseWrite(); err != nil {
		t.Error(err)
	}
}

// resetUpstream breaks the upstream off.
func (r *rig) resetUpstream(t testing.TB) {
	t.Helper()
	if r.relay != nil {
		r.relay.end(errors.New("far end is gone"))
	} else if err := r.upstream.(*net.TCPConn).SetLinger(0); err != nil {
		t.Error(err)
	}
	if err := r.upstream.Close(); err != nil {
		t.Error(err)
	}
}

func (r *rig) resetClient(t testing.TB) {
	t.Helper()
	if err := r.client.SetLinger(0); err != nil {
		t.Error(err)
	}
	if err := r.client.Close(); err != nil {
		t.Error(err)
	}
}

// fakeRelay is a plugin that says what the test wants.
type fakeRelay struct {
	eofs, ends chan struct{} // closed once it is known
	aborted    chan string
	announced  chan struct{}
	broken     chan struct{}
	ended      chan struct{}
	once, word sync.Once
	mu         sync.Mutex
	err        error
	// announce and abort, where they are set, are called as well.
	announce func() error
	abort    func()
}

func newFakeRelay() *fakeRelay {
	return &fakeRelay{
		eofs: make(chan struct{}), ends: make(chan struct{}),
		aborted: make(chan string, 1), announced: make(chan struct{}), ended: make(chan struct{}),
		broken: make(chan struct{}),
	}
}

func (r *fakeRelay) eof() { r.once.Do(func() { close(r.eofs) }) }

// end says how the tunnel ended; the first word counts.
func (r *fakeRelay) end(err error) {
	r.word.Do(func() {
		r.mu.Lock()
		r.err = err
		r.mu.Unlock()
		close(r.ends)
	})
}

func (r *fakeRelay) AnnounceEOF() error {
	close(r.announced)
	if r.announce != nil {
		return r.announce()
	}
	return nil
}

func (r *fakeRelay) ConfirmEOF() error {
	select {
	case <-r.eofs:
		return nil
	case <-r.ends:
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.err
	case <-time.After(10 * time.Second):
		return errors.New("nothing was announced")
	}
}

func (r *fakeRelay) ConfirmEnd(ctx context.Context) error {
	select {
	case <-r.ends:
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.err
	case <-r.broken:
		return errors.New("aborted")
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (r *fakeRelay) Abort(reason string) {
	if r.abort != nil {
		r.abort()
	}
	r.aborted <- reason
	close(r.broken)
}

func (r *fakeRelay) Ended() { close(r.ended) }

func eachPath(t *testing.T, test func(t *testing.T, start func(Tunnel), s shape)) {
	eachPump(t, func(t *testing.T, start func(Tunnel)) {
		for _, relay := range []bool{false, true} {
			t.Run(fmt.Sprintf("relay=%v", relay), func(t *testing.T) { test(t, start, shape{relay: relay}) })
		}
	})
}

func write(t testing.TB, c net.Conn, s string) {
	t.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		t.Fatal(err)
	}
}

func read(t testing.TB, c net.Conn, want string) {
	t.Helper()
	b := make([]byte, len(want))
	if _, err := io.ReadFull(c, b); err != nil || string(b) != want {
		t.Fatalf("read %q, %v; want %q", b, err, want)
	}
}

func expectEOF(t testing.TB, c net.Conn, want string) {
	t.Helper()
	b, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(b, []byte(want)) {
		t.Fatalf("read %q, %v; want %q and a clean end", b, err, want)
	}
}

func expectReset(t testing.TB, c net.Conn) {
	t.Helper()
	if _, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("read: %v; want a reset", err)
	}
}

// descriptors counts this process's.
func descriptors(t testing.TB) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// zeros has no end.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) { return len(b), nil }
