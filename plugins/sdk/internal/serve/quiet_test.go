package serve

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tunneld/tunneld/internal/pluginwire"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// The clock begins with await, begins anew with each byte, and stands still while
// one is on its way to the client.
func TestQuiet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		over := make(chan time.Time, 1)
		start := time.Now()
		q := newQuiet(time.Second, func() { over <- time.Now() })
		time.Sleep(time.Hour) // the far end has not taken everything yet
		if !q.enter() {
			t.Fatal("it ended before it began")
		}
		q.leave()
		q.await()
		time.Sleep(999 * time.Millisecond)
		q.enter()
		time.Sleep(time.Hour) // the client is slow to take the byte
		q.leave()
		begun := time.Since(start)
		if took := (<-over).Sub(start) - begun; took != time.Second {
			t.Errorf("it ended %v after the last byte", took)
		}
		if q.enter() {
			t.Error("a byte came after the end")
		}
		q.stop()
	})
}

// A byte that comes just as the timer fires begins the time anew, or is too late:
// never both.
func TestQuietAtTheLastMoment(t *testing.T) {
	for range 200 {
		over := make(chan struct{})
		q := newQuiet(time.Microsecond, func() { close(over) })
		q.await()
		if q.enter() {
			select {
			case <-over:
				t.Fatal("it ended with a byte on its way")
			default:
			}
			q.leave()
		}
		<-over
	}
}

// A relay that has ended, before or behind the wait for the far end, leaves no
// timer that runs.
func TestQuietStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fail := func() { t.Error("it ended again") }
		running, late := newQuiet(time.Second, fail), newQuiet(time.Second, fail)
		running.await()
		running.stop()
		late.stop()
		late.await()
		time.Sleep(time.Hour)
	})
}

// gatedStream is one whose far end takes what was written when the test lets it.
type gatedStream struct {
	*fakeStream
	entered chan struct{}
	taken   chan error
}

func (s *gatedStream) CloseWrite() error {
	close(s.entered)
	return <-s.taken
}

// halfClosed is a relay whose client has ended its direction, of a protocol that
// cannot pass that on, and whose far end has not taken everything yet.
func halfClosed(t *testing.T, halfClose time.Duration, set ...func(*Server)) (s *gatedStream, far, client net.Conn, core *pluginwire.Channel) {
	t.Helper()
	fake, far := newFakeStream()
	t.Cleanup(func() { _ = far.Close() })
	s = &gatedStream{fake, make(chan struct{}), make(chan error)}
	server, core := start(t, Options{}, func(context.Context) *Tunnel {
		return &Tunnel{Relay: func() Stream { return s }}
	})
	server.plugin.Info = &pluginv1.GetInfoResponse{NoHalfClose: true}
	for _, f := range set {
		f(server)
	}
	req := request(7)
	req.Common = &pluginv1.CommonSettings{HalfClose: durationpb.New(halfClose)}
	if _, err := server.Dial(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	client = arrived(t, core)
	if err := core.Send(pluginwire.Record{Kind: pluginwire.EOF, Token: 7}, nil); err != nil {
		t.Fatal(err)
	}
	if err := client.(*net.UnixConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	<-s.entered
	return s, far, client, core
}

// TestHalfCloseEndsTheTunnel: half_close after the far end has taken everything,
// and not before, the tunnel ends cleanly, behind its last byte.
func TestHalfCloseEndsTheTunnel(t *testing.T) {
	s, far, client, core := halfClosed(t, 10*time.Millisecond)
	// Not a wait for something to happen: the end must not come in this time.
	time.Sleep(50 * time.Millisecond)
	if _, err := far.Write([]byte("answer")); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 6)
	if _, err := io.ReadFull(client, b); err != nil || string(b) != "answer" {
		t.Fatalf("got %q, %v", b, err)
	}
	s.taken <- nil
	receiveEnd(t, core, pluginwire.StatusClean, "")
	if n, err := client.Read(b); err != io.EOF {
		t.Errorf("read %d, %v", n, err)
	}
	if calls := s.wait(t); calls != "close" {
		t.Errorf("calls are %s", calls)
	}
}

// TestHalfCloseOfWhatWasNotTaken: bytes that the far end did not take make the
// end an error.
func TestHalfCloseOfWhatWasNotTaken(t *testing.T) {
	s, _, _, core := halfClosed(t, time.Millisecond)
	s.taken <- errors.New("the write was refused")
	receiveEnd(t, core, pluginwire.StatusError, "the write was refused")
	if calls := s.wait(t); calls != "abort: the write was refused" {
		t.Errorf("calls are %s", calls)
	}
}

// TestNoHalfCloseIsForEver: half_close = "0s" leaves the end to the far end.
func TestNoHalfCloseIsForEver(t *testing.T) {
	s, far, _, core := halfClosed(t, 0)
	s.taken <- nil
	// Not a wait for something to happen: the end must not come in this time.
	time.Sleep(20 * time.Millisecond)
	if _, err := far.Write([]byte("late")); err != nil {
		t.Errorf("the tunnel has ended: %v", err)
	}
	_ = far.Close()
	receiveEnd(t, core, pluginwire.StatusClean, "")
	if calls := s.wait(t); calls != "close" {
		t.Errorf("calls are %s", calls)
	}
}

// TestHalfClosedClientThatTakesNothing: a client that has ended its direction and does
// not read holds neither the tunnel nor what the far end keeps for it, whether it stops
// before or after the far end has taken everything.
func TestHalfClosedClientThatTakesNothing(t *testing.T) {
	for name, before := range map[string]bool{"before": true, "after": false} {
		t.Run(name, func(t *testing.T) {
			s, far, _, core := halfClosed(t, time.Hour, func(s *Server) { s.takeTime = 20 * time.Millisecond })
			// The relay takes no more from the far end once the client's side is full.
			fill := func(patience time.Duration) (err error) {
				chunk := make([]byte, 64<<10)
				for err == nil {
					_ = far.SetWriteDeadline(time.Now().Add(patience))
					_, err = far.Write(chunk)
				}
				return err
			}
			if before {
				if err := fill(50 * time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Fatal(err)
				}
			}
			s.taken <- nil
			if !before {
				if err := fill(time.Minute); errors.Is(err, os.ErrDeadlineExceeded) {
					t.Fatal("the tunnel goes on")
				}
			}
			receiveEnd(t, core, pluginwire.StatusError, "read nothing for 20ms")
			if calls := s.wait(t); calls == "close" {
				t.Error("the far end was told of a clean end")
			}
		})
	}
}
