package soht

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/nettest"
	"github.com/tunneld/tunneld/plugins/sdk"
	"github.com/tunneld/tunneld/plugins/soht/sohtemu"
)

// contents are what goes through a tunnel in bulk.
func contents(n int) map[string][]byte {
	random := make([]byte, n)
	r := rand.NewChaCha8([32]byte{1})
	r.Read(random)
	return map[string][]byte{"random": random, "zeros": make([]byte, n)}
}

// bulk is little here: the interop suite carries 64 MiB.
const bulk = 2 << 20

func TestBulkDown(t *testing.T) {
	modes(t, func(t *testing.T, mode string) {
		s := emulate(t, sohtemu.Options{IdlePoll: time.Millisecond})
		for name, data := range contents(bulk) {
			c := mustDial(t, towards(s, mode), sender(t, data))
			if got := readAll(t, c); !bytes.Equal(got, data) {
				t.Errorf("%s: %d bytes came otherwise than sent", name, len(got))
			}
		}
	})
}

func TestBulkUp(t *testing.T) {
	modes(t, func(t *testing.T, mode string) {
		s := emulate(t, sohtemu.Options{IdlePoll: time.Millisecond})
		for name, data := range contents(bulk) {
			sums := make(chan [32]byte, 1)
			c := mustDial(t, towards(s, mode), nettest.Serve(t, func(c *net.TCPConn) {
				b := make([]byte, len(data))
				_, _ = io.ReadFull(c, b)
				sums <- sha256.Sum256(b)
			}))
			write(t, c, data)
			if receive(t, sums) != sha256.Sum256(data) {
				t.Errorf("%s: the target got other bytes than sent", name)
			}
		}
	})
}

func TestBulkBothWays(t *testing.T) {
	modes(t, func(t *testing.T, mode string) {
		s := emulate(t, sohtemu.Options{IdlePoll: time.Millisecond})
		for name, data := range contents(bulk) {
			c := mustDial(t, towards(s, mode), nettest.Serve(t, nettest.Echo))
			go func() { _, _ = c.Write(data) }()
			if got := read(t, c, len(data)); !bytes.Equal(got, data) {
				t.Errorf("%s: other bytes came than sent", name)
			}
		}
	})
}

// A target that sends back as much as it gets, and more than the buffers on the
// way hold: a poll brings less than it can take along.
func TestEchoOfMoreThanTheBuffersHold(t *testing.T) {
	s := emulate(t, sohtemu.Options{IdlePoll: time.Millisecond})
	target := nettest.Serve(t, func(c *net.TCPConn) {
		// Not less than a segment of loopback has, 64 KiB: with a full buffer of 16 KiB,
		// Linux 6.18 drops segments with the acknowledgments in them, and both ends wait.
		_ = c.SetReadBuffer(128 << 10)
		_ = c.SetWriteBuffer(128 << 10)
		_, _ = io.Copy(c, c)
	})
	c := mustDial(t, towards(s, modeStateless), target)
	data := bytes.Repeat([]byte("what goes there and back"), 1<<20)
	go func() { _, _ = c.Write(data) }()
	if got := read(t, c, len(data)); !bytes.Equal(got, data) {
		t.Error("other bytes came than sent")
	}
}

// A target that is not read from does not keep the client from writing, and one
// that does not read does not keep its bytes from the client.
func TestDirectionsAreIndependent(t *testing.T) {
	s := emulate(t, sohtemu.Options{})
	addr, conns := scripted(t)
	stream := bare(t, config(s, modeStateful), addr)
	target := receive(t, conns)
	stuffed := make(chan struct{})
	go func() {
		defer close(stuffed)
		block := make([]byte, 64<<10)
		for {
			if _, err := stream.Write(block); err != nil {
				return
			}
		}
	}()
	for range 100 {
		write(t, target, []byte("hello"))
		if got := read(t, stream, 5); string(got) != "hello" {
			t.Fatalf("got %q", got)
		}
	}
	stream.Abort("")
	<-stuffed
}

func TestSmallWritesGoTogether(t *testing.T) {
	modes(t, func(t *testing.T, mode string) {
		s := emulate(t, sohtemu.Options{IdlePoll: time.Millisecond, Faults: sohtemu.Faults{Delay: 20 * time.Millisecond}})
		c := mustDial(t, towards(s, mode), nettest.Serve(t, nettest.Echo))
		const writes = 200
		for range writes {
			write(t, c, []byte("0123456789"))
			time.Sleep(100 * time.Microsecond)
		}
		read(t, c, writes*10)
		st := s.Stats().Requests
		if n := st["write"] + st["readwrite"]; n > writes/4 {
			t.Errorf("%d writes made %d requests", writes, n)
		}
	})
}

func TestConnectionsAreReused(t *testing.T) {
	modes(t, func(t *testing.T, mode string) {
		s := emulate(t, sohtemu.Options{IdlePoll: time.Millisecond})
		u := upstream(t, towards(s, mode))
		target := nettest.Serve(t, nettest.Echo)
		for range 5 {
			c, err := u.Dial(t.Context(), target)
			if err != nil {
				t.Fatal(err)
			}
			_ = c.SetDeadline(time.Now().Add(patience))
			for range 10 {
				write(t, c, []byte("hi"))
				read(t, c, 2)
			}
			_ = c.Close()
			eventually(t, s, "close", func(st sohtemu.Stats) bool { return st.Open == 0 })
		}
		// A read that is broken off takes its connection with it: the target
		// had not ended.
		if n := s.Stats().HTTPConnections; n > 12 {
			t.Errorf("%d HTTP connections for five tunnels", n)
		}
	})
}

func TestServerWithoutKeepAlive(t *testing.T) {
	modes(t, func(t *testing.T, mode string) {
		s := emulate(t, sohtemu.Options{IdlePoll: time.Millisecond, Faults: sohtemu.Faults{NoKeepAlive: true}})
		c := mustDial(t, towards(s, mode), nettest.Serve(t, nettest.Echo))
		for range 20 {
			write(t, c, []byte("hi"))
			read(t, c, 2)
		}
	})
}

// "close sent on every end", whoever ends it and however.
func TestCloseIsSentOnEveryEnd(t *testing.T) {
	closed := func(t *testing.T, s *sohtemu.Server) {
		t.Helper()
		eventually(t, s, "close", func(st sohtemu.Stats) bool { return st.Requests["close"] == 1 && st.Open == 0 })
	}
	modes(t, func(t *testing.T, mode string) {
		t.Run("target's end", func(t *testing.T) {
			s := emulate(t, sohtemu.Options{})
			readAll(t, mustDial(t, towards(s, mode), sender(t, []byte("bye"))))
			closed(t, s)
		})
		t.Run("client's reset", func(t *testing.T) {
			s := emulate(t, sohtemu.Options{})
			c := mustDial(t, towards(s, mode), nettest.Serve(t, nettest.Echo))
			write(t, c, []byte("hi"))
			_ = c.Abort("reset")
			closed(t, s)
		})
		t.Run("a broken exchange", func(t *testing.T) {
			s := emulate(t, sohtemu.Options{Faults: sohtemu.Faults{On: map[string]sohtemu.Fault{
				"read": {Status: 502}, "readwrite": {Status: 502},
			}}})
			c := mustDial(t, towards(s, mode), nettest.Serve(t, nettest.Echo))
			if _, err := c.Read(make([]byte, 1)); err == nil || err == io.EOF {
				t.Errorf("read: %v", err)
			}
			closed(t, s)
		})
		t.Run("bounded", func(t *testing.T) {
			s := emulate(t, sohtemu.Options{Faults: sohtemu.Faults{On: map[string]sohtemu.Fault{"close": {Silent: true}}}})
			stream := bare(t, config(s, mode), nettest.Serve(t, nettest.Echo))
			start := time.Now()
			if err := stream.Close(); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("close: %v", err)
			}
			if took := time.Since(start); took > closeTimeout+5*time.Second {
				t.Errorf("it took %v", took)
			}
		})
	})
	t.Run("a dial that was cancelled", func(t *testing.T) {
		s := emulate(t, sohtemu.Options{Faults: sohtemu.Faults{Delay: 200 * time.Millisecond}})
		u := upstream(t, towards(s, modeStateful))
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if _, err := u.Dial(ctx, nettest.Serve(t, nettest.Echo)); err == nil {
			t.Fatal("it was not cancelled")
		}
		eventually(t, s, "open", func(st sohtemu.Stats) bool { return st.Requests["open"] == 1 })
		closed(t, s)
	})
}

// What ends a tunnel from outside ends a Read and a Write under way.
func TestAbortEndsWhatIsUnderWay(t *testing.T) {
	modes(t, func(t *testing.T, mode string) {
		s := emulate(t, sohtemu.Options{})
		stream := bare(t, config(s, mode), scriptedTarget(t))
		var wait sync.WaitGroup
		wait.Go(func() {
			if _, err := stream.Read(make([]byte, 10)); !errors.Is(err, net.ErrClosed) {
				t.Errorf("read: %v", err)
			}
		})
		wait.Go(func() {
			for {
				if _, err := stream.Write(make([]byte, 64<<10)); err != nil {
					if !errors.Is(err, net.ErrClosed) {
						t.Errorf("write: %v", err)
					}
					return
				}
			}
		})
		eventually(t, s, "a write", func(st sohtemu.Stats) bool { return st.Requests["write"]+st.Requests["readwrite"] > 0 })
		stream.Abort("")
		wait.Wait()
	})
}

// What was written before the client's end of file has arrived when CloseWrite
// returns.
func TestCloseWriteFlushes(t *testing.T) {
	modes(t, func(t *testing.T, mode string) {
		s := emulate(t, sohtemu.Options{IdlePoll: time.Millisecond, Faults: sohtemu.Faults{Delay: 5 * time.Millisecond}})
		addr, conns := scripted(t)
		stream := bare(t, config(s, mode), addr)
		target := receive(t, conns)
		data := bytes.Repeat([]byte("0123456789"), 10_000)
		write(t, stream, data)
		if err := stream.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		_ = target.SetReadDeadline(time.Now().Add(time.Second))
		if got := read(t, target, len(data)); !bytes.Equal(got, data) {
			t.Error("other bytes came than were sent")
		}
	})
}

// A write that fails ends the read as well: nothing else would tell the client.
func TestFailedWriteEndsTheRead(t *testing.T) {
	s := emulate(t, sohtemu.Options{Faults: sohtemu.Faults{On: map[string]sohtemu.Fault{"write": {After: 1, Status: 503}}}})
	stream := bare(t, config(s, modeStateful), nettest.Serve(t, nettest.Echo))
	write(t, stream, []byte("one"))
	read(t, stream, 3)
	write(t, stream, []byte("two"))
	if _, err := stream.Read(make([]byte, 1)); !errors.Is(err, ErrStatus) {
		t.Errorf("read: %v", err)
	}
}

// A server that is stuck ends a stateless tunnel: the listener need not have an
// idle time.
func TestPollWithoutAnAnswer(t *testing.T) {
	s := emulate(t, sohtemu.Options{Faults: sohtemu.Faults{On: map[string]sohtemu.Fault{"readwrite": {Silent: true}}}})
	c := config(s, modeStateless)
	cl, err := c.client(new(sdk.Request))
	if err != nil {
		t.Fatal(err)
	}
	cl.pollTime = 50 * time.Millisecond
	if e := expectBroken(t, bare(t, c, scriptedTarget(t)), ErrExchange); e.Reason != sdk.ReasonTimeout {
		t.Errorf("got %+v", e)
	}
}

func TestByteAtATime(t *testing.T) {
	s := emulate(t, sohtemu.Options{Faults: sohtemu.Faults{ByteAtATime: true}})
	data := []byte("a\x00b\x00\x00c\x00")
	if got := readAll(t, mustDial(t, towards(s, modeStateful), sender(t, data))); !bytes.Equal(got, data) {
		t.Errorf("got %q", got)
	}
}

func TestAnswersWithoutLengthStateful(t *testing.T) {
	s := emulate(t, sohtemu.Options{Faults: sohtemu.Faults{HTTP10: true}})
	c := mustDial(t, towards(s, modeStateful), nettest.Serve(t, nettest.Echo))
	write(t, c, []byte("hi"))
	read(t, c, 2)
}

// Many tunnels at once over one upstream.
func TestManyTunnels(t *testing.T) {
	modes(t, func(t *testing.T, mode string) {
		s := emulate(t, sohtemu.Options{IdlePoll: time.Millisecond})
		u := upstream(t, towards(s, mode))
		target := nettest.Serve(t, nettest.Echo)
		var wait sync.WaitGroup
		for i := range 32 {
			wait.Go(func() {
				c, err := u.Dial(t.Context(), target)
				if err != nil {
					t.Error(err)
					return
				}
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(patience))
				data := bytes.Repeat([]byte{byte(i)}, 50_000)
				go func() { _, _ = c.Write(data) }()
				got := make([]byte, len(data))
				if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, data) {
					t.Errorf("tunnel %d: %v", i, err)
				}
			})
		}
		wait.Wait()
		eventually(t, s, "close", func(st sohtemu.Stats) bool { return st.Open == 0 })
	})
}

// An upstream that is released while tunnels live on, as after a reload.
func TestTunnelsOutliveTheirGeneration(t *testing.T) {
	modes(t, func(t *testing.T, mode string) {
		s := emulate(t, sohtemu.Options{})
		u := upstream(t, towards(s, mode))
		c, err := u.Dial(t.Context(), nettest.Serve(t, nettest.Echo))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(patience))
		u.Release(t)
		write(t, c, []byte("hi"))
		read(t, c, 2)
	})
}

var _ sdk.Stream = (*stateful)(nil)
