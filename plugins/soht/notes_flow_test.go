package soht

import (
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/nettest"
	"github.com/tunneld/tunneld/plugins/soht/sohtemu"
)

// The notes on how a tunnel goes on and ends; see notes_test.go.

// "No half-close: close ends both directions": after the client's end of file
// the target's answer still arrives, and close comes after it.
func TestNoteNoHalfClose(t *testing.T) {
	modes(t, func(t *testing.T, mode string) {
		s := emulate(t, sohtemu.Options{})
		addr, conns := scripted(t)
		c := mustDial(t, towards(s, mode), addr)
		target := receive(t, conns)
		write(t, c, []byte("question"))
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		read(t, target, 8)
		// Not a wait for something to happen: the close must not come now.
		time.Sleep(50 * time.Millisecond)
		if n := s.Stats().Requests["close"]; n != 0 {
			t.Error("close was sent before the answer")
		}
		write(t, target, []byte("answer"))
		_ = target.CloseWrite()
		if got := readAll(t, c); string(got) != "answer" {
			t.Errorf("got %q", got)
		}
		if err := awaitEnd(t, c); err != nil {
			t.Errorf("end: %v", err)
		}
		eventually(t, s, "close", func(st sohtemu.Stats) bool { return st.Requests["close"] == 1 && st.Open == 0 })
	})
}

// "In stateless mode an idle poll blocks about 100 ms at the server; a full
// reply means that more is waiting": draining needs a request for each 16 KiB
// and no pause.
func TestNotePollingDrainsAtFullSpeed(t *testing.T) {
	s := emulate(t, sohtemu.Options{})
	data := make([]byte, 2<<20)
	start := time.Now()
	if got := readAll(t, mustDial(t, towards(s, modeStateless), sender(t, data))); len(got) != len(data) {
		t.Errorf("got %d bytes", len(got))
	}
	// 128 polls; with a pause after each it would be 2.5 s.
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("it took %v", took)
	}
}

func TestNotePollingBacksOffAndWakes(t *testing.T) {
	s := emulate(t, sohtemu.Options{IdlePoll: time.Millisecond})
	addr, conns := scripted(t)
	c := mustDial(t, towards(s, modeStateless), addr)
	target := receive(t, conns)
	// The polls of 1.5 s begin 20, 60, 140, … 1260 ms after the first byte.
	write(t, c, []byte("x"))
	read(t, target, 1)
	before := s.Stats().Requests["readwrite"]
	time.Sleep(1500 * time.Millisecond)
	if n := s.Stats().Requests["readwrite"] - before; n > 8 {
		t.Errorf("%d polls of an idle tunnel in 1.5 s", n)
	}
	start := time.Now()
	write(t, c, []byte("wake"))
	read(t, target, 4)
	if took := time.Since(start); took > 500*time.Millisecond {
		t.Errorf("a write after idling took %v", took)
	}
	write(t, target, []byte("answer"))
	start = time.Now()
	read(t, c, 6)
	if took := time.Since(start); took > 500*time.Millisecond {
		t.Errorf("the answer to it took %v", took)
	}
}

// "If the HTTP connection of read breaks, what the server had buffered is lost:
// the tunnel is then broken, and has to end with an error, never with a silent
// gap": the daemon is told an unclean end.
func TestNoteBrokenReadIsNoEnd(t *testing.T) {
	s := emulate(t, sohtemu.Options{Faults: sohtemu.Faults{CutReadAfter: 100_000}})
	c := mustDial(t, towards(s, modeStateful), sender(t, make([]byte, 200_000)))
	n, err := io.Copy(io.Discard, c)
	if err == nil || n > 100_000 {
		t.Errorf("got %d bytes and %v", n, err)
	}
	if err := awaitEnd(t, c); err == nil || !strings.Contains(err.Error(), "broke off") {
		t.Errorf("the daemon is told %v", err)
	}
}

// "A test plays ping-pong with messages that all end in NUL."
func TestNotePingPongOfNULs(t *testing.T) {
	modes(t, func(t *testing.T, mode string) {
		s := emulate(t, sohtemu.Options{})
		c := mustDial(t, towards(s, mode), nettest.Serve(t, func(c *net.TCPConn) {
			b := make([]byte, 6)
			for {
				if _, err := io.ReadFull(c, b); err != nil {
					return
				}
				if _, err := c.Write([]byte("pong \x00")); err != nil {
					return
				}
			}
		}))
		start := time.Now()
		const rounds = 10
		for i := range rounds {
			write(t, c, []byte("ping \x00"))
			if got := read(t, c, 6); string(got) != "pong \x00" {
				t.Fatalf("round %d: %q", i, got)
			}
		}
		t.Logf("%v a round", time.Since(start)/rounds)
	})
}
