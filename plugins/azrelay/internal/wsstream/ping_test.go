package wsstream

import (
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gobwas/ws"
)

// farEnd is a connection to a peer that takes everything at once. Its time is
// that of synctest.
type farEnd struct {
	net.Conn
	answers bool // pings
	in      chan []byte
	done    chan struct{}
	once    sync.Once
}

func newFarEnd(answers bool) *farEnd {
	return &farEnd{answers: answers, in: make(chan []byte, 1024), done: make(chan struct{})}
}

func (f *farEnd) Read(p []byte) (int, error) {
	select {
	case b := <-f.in:
		return copy(p, b), nil
	default:
	}
	select {
	case b := <-f.in:
		return copy(p, b), nil
	case <-f.done:
		return 0, net.ErrClosed
	}
}

func (f *farEnd) Write(p []byte) (int, error) {
	select {
	case <-f.done:
		return 0, net.ErrClosed
	default:
	}
	if p[0] == 0x89 && f.answers {
		f.send(ws.NewPongFrame(nil))
	}
	return len(p), nil
}

func (f *farEnd) send(frame ws.Frame) { f.in <- ws.MustCompileFrame(frame) }

func (f *farEnd) Close() error {
	f.once.Do(func() { close(f.done) })
	return nil
}

const (
	testPing    = 30 * time.Second
	testTimeout = 60 * time.Second
	long        = 20 * time.Minute
)

// pingTest runs test in a bubble of synctest, with a stream whose reads go on
// once read is called; ended has the error that ended them.
func pingTest(t *testing.T, answers bool, test func(t *testing.T, f *farEnd, c *Conn, read func() (ended <-chan error))) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f := newFarEnd(answers)
		c := New(Options{Conn: f, Ping: testPing, PingTimeout: testTimeout})
		test(t, f, c, func() <-chan error {
			ended := make(chan error, 1)
			go func() {
				_, err := io.Copy(io.Discard, c)
				ended <- err
			}()
			return ended
		})
		c.Abort()
	})
}

func alive(t *testing.T, ended <-chan error) {
	t.Helper()
	synctest.Wait()
	select {
	case err := <-ended:
		t.Errorf("the stream has ended: %v", err)
	default:
	}
}

func TestUnansweredPingEndsTheStream(t *testing.T) {
	pingTest(t, false, func(t *testing.T, _ *farEnd, c *Conn, read func() <-chan error) {
		ended := read()
		time.Sleep(testPing + testTimeout - time.Second)
		alive(t, ended)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		select {
		case err := <-ended:
			var silent NoAnswerError
			if !errors.As(err, &silent) || time.Duration(silent) != testTimeout {
				t.Errorf("the end is %v", err)
			}
		default:
			t.Error("the stream has not ended")
		}
		if _, err := c.Write([]byte("x")); !errors.As(err, new(NoAnswerError)) {
			t.Errorf("a write after it: %v", err)
		}
	})
}

// The peer has answered until now, and what it was sent since is little.
func TestPeerThatFallsSilent(t *testing.T) {
	pingTest(t, true, func(t *testing.T, f *farEnd, c *Conn, read func() <-chan error) {
		ended := read()
		time.Sleep(long)
		alive(t, ended)
		f.answers = false
		if _, err := c.Write(make([]byte, maxOwed)); err != nil {
			t.Fatal(err)
		}
		if err := <-ended; !errors.As(err, new(NoAnswerError)) {
			t.Errorf("the end is %v", err)
		}
	})
}

func TestBytesThatFlowKeepTheStream(t *testing.T) {
	for name, flow := range map[string]func(f *farEnd, c *Conn) error{
		"down": func(f *farEnd, _ *Conn) error { f.send(ws.NewBinaryFrame([]byte("x"))); return nil },
		"up":   func(_ *farEnd, c *Conn) error { _, err := c.Write([]byte("x")); return err },
	} {
		t.Run(name, func(t *testing.T) {
			pingTest(t, false, func(t *testing.T, f *farEnd, c *Conn, read func() <-chan error) {
				ended := read()
				for at := time.Duration(0); at < long; at += testTimeout - time.Second {
					if err := flow(f, c); err != nil {
						t.Fatal(err)
					}
					time.Sleep(testTimeout - time.Second)
				}
				alive(t, ended)
			})
		})
	}
}

// Its answers wait here until the client takes what came before them.
func TestSlowClientIsNoDeadLine(t *testing.T) {
	pingTest(t, true, func(t *testing.T, f *farEnd, _ *Conn, read func() <-chan error) {
		time.Sleep(long)
		ended := read()
		time.Sleep(long)
		alive(t, ended)
	})
}

// The peer reads pings no sooner than its target has taken what came before them.
func TestSlowTargetIsNoDeadLine(t *testing.T) {
	pingTest(t, false, func(t *testing.T, f *farEnd, c *Conn, read func() <-chan error) {
		ended := read()
		if _, err := c.Write(make([]byte, maxOwed+1)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(long)
		alive(t, ended)
		// It has, and answers; then it falls silent.
		f.send(ws.NewPongFrame(nil))
		if err := <-ended; !errors.As(err, new(NoAnswerError)) {
			t.Errorf("the end is %v", err)
		}
	})
}

// A peer that has closed its direction may answer no more; the other direction goes
// on.
func TestHalfClosedStreamsNeedNoAnswers(t *testing.T) {
	t.Run("by this side", func(t *testing.T) {
		pingTest(t, false, func(t *testing.T, f *farEnd, c *Conn, read func() <-chan error) {
			ended := read()
			if err := c.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(long)
			alive(t, ended)
		})
	})
	t.Run("by the peer", func(t *testing.T) {
		pingTest(t, false, func(t *testing.T, f *farEnd, c *Conn, read func() <-chan error) {
			ended := read()
			f.send(ws.NewCloseFrame(nil))
			if err := <-ended; err != nil { // io.Copy's end of file
				t.Fatal(err)
			}
			time.Sleep(long)
			if _, err := c.Write([]byte("still here")); err != nil {
				t.Errorf("a write: %v", err)
			}
		})
	})
}
