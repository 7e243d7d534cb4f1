package serve

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/nettest"
	"github.com/tunneld/tunneld/internal/pluginwire"
	"github.com/tunneld/tunneld/internal/sockopt"
)

// deadLine is the limit in these tests.
const deadLine = 600 * time.Millisecond

// onSocket starts a server whose dials bring a relay on near.
func onSocket(t *testing.T, o Options, near *net.TCPConn) (s *Server, core *pluginwire.Channel, stream *fakeStream) {
	o.DeadLine = deadLine
	stream = &fakeStream{Conn: near, ended: make(chan struct{})}
	s, core = start(t, o, func(context.Context) *Tunnel {
		return &Tunnel{Relay: func() Stream { return stream }, Socket: near}
	})
	return s, core, stream
}

func watchConn(t *testing.T, s *Server, c *net.TCPConn) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	s.watch(c.RemoteAddr().String(), raw)
}

// TestBlackHoleEndsARelay cuts the far end's link: the daemon is told why the
// tunnel ended, and the stream is aborted, also where the socket is one that the
// plugin's dialer made.
func TestBlackHoleEndsARelay(t *testing.T) {
	n := nettest.New(t)
	near, far := n.Pair(t)
	s, core, stream := onSocket(t, Options{}, near)
	watchConn(t, s, near)
	client := relayed(t, s, core)
	got := make([]byte, 5)
	if _, err := io.WriteString(client, "hello"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(far, got); err != nil {
		t.Fatal(err)
	}
	n.Cut(t)
	if _, err := io.WriteString(client, "into the void"); err != nil {
		t.Fatal(err)
	}
	receiveEnd(t, core, pluginwire.StatusError, "the line is dead")
	if calls := stream.wait(t); calls != "abort: "+(DeadLineError{deadLine}).Error() {
		t.Errorf("calls: %s", calls)
	}
}

// TestBlackHoleResetsASocket has one that no relay names, as of a pool.
func TestBlackHoleResetsASocket(t *testing.T) {
	n := nettest.New(t)
	near, _ := n.Pair(t)
	s, _ := start(t, Options{DeadLine: deadLine}, nil)
	watchConn(t, s, near)
	n.Cut(t)
	if _, err := io.WriteString(near, "into the void"); err != nil {
		t.Fatal(err)
	}
	// Not io.EOF, which would be a clean end.
	if _, err := near.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read: %v, want a reset", err)
	}
}

// TestDeadLineIsSeenWithoutANetworkOfItsOwn tells the server what it would read
// of a dead line.
func TestDeadLineIsSeenWithoutANetworkOfItsOwn(t *testing.T) {
	near, _ := nettest.Pair(t)
	s, core, stream := onSocket(t, Options{Acks: func(uintptr) (sockopt.Acks, bool) {
		return sockopt.Acks{Unacked: 1, Last: time.Hour}, true
	}}, near)
	relayed(t, s, core)
	receiveEnd(t, core, pluginwire.StatusError, "the line is dead")
	stream.wait(t)
}

// TestSlowReaderIsNoDeadLine has a far end that reads nothing for twice the
// limit, and then everything.
func TestSlowReaderIsNoDeadLine(t *testing.T) {
	near, far := nettest.Pair(t)
	var looks atomic.Int64
	twice := make(chan struct{})
	s, core, _ := onSocket(t, Options{Acks: func(fd uintptr) (sockopt.Acks, bool) {
		if looks.Add(1) == 24 {
			close(twice)
		}
		return sockopt.ReadAcks(fd)
	}}, near)
	client := relayed(t, s, core)
	sent := bytes.Repeat([]byte("0123456789abcdef"), 1<<20)
	written := make(chan error, 1)
	go func() {
		_, err := client.Write(sent)
		written <- err
	}()
	select {
	case <-twice:
	case err := <-written:
		t.Fatalf("before the far end has read anything the write is over: %v", err)
	}
	got := make([]byte, len(sent))
	if n, err := io.ReadFull(far, got); err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d of %d bytes, %v", n, len(sent), err)
	}
	if err := <-written; err != nil {
		t.Error(err)
	}
}

// TestClosedSocketsAreForgotten: what a plugin dials and closes costs nothing for
// good.
func TestClosedSocketsAreForgotten(t *testing.T) {
	s, _ := start(t, Options{}, nil)
	open, _ := nettest.Pair(t)
	watchConn(t, s, open)
	for range 10 * leastSweep {
		near, _ := nettest.Pair(t)
		watchConn(t, s, near)
		_ = near.Close()
	}
	s.lines.mu.Lock()
	kept := len(s.lines.sockets)
	s.lines.mu.Unlock()
	if kept > leastSweep {
		t.Errorf("%d sockets are watched, one of them open", kept)
	}
	s.checkLines()
	s.lines.mu.Lock()
	defer s.lines.mu.Unlock()
	if len(s.lines.sockets) != 1 {
		t.Errorf("%d sockets are watched after a look", len(s.lines.sockets))
	}
}
