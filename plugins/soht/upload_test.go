package soht

import (
	"bytes"
	"context"
	"crypto/sha256"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/nettest"
	"github.com/tunneld/tunneld/plugins/sdk/sdktest"
	"github.com/tunneld/tunneld/plugins/soht/sohtemu"
)

// In mode "stateless" all that goes to the target goes by write, and waits for no
// poll, which the server may keep for as long as the target is silent.
func TestUploadWaitsForNoPoll(t *testing.T) {
	var mu sync.Mutex
	carried := map[string]int{}
	s := emulate(t, sohtemu.Options{IdlePoll: time.Hour, Observe: func(f sohtemu.Form) {
		mu.Lock()
		defer mu.Unlock()
		if !strings.Contains(string(f.Raw), "&datalength=0&") {
			carried[f.Action]++
		}
	}})
	data := contents(bulk)["random"]
	sums := make(chan [32]byte, 1)
	c := mustDial(t, towards(s, modeStateless), nettest.Serve(t, func(c *net.TCPConn) {
		b := make([]byte, len(data))
		_, _ = io.ReadFull(c, b)
		sums <- sha256.Sum256(b)
	}))
	// A poll is at the server before the first byte.
	eventually(t, s, "a poll", func(st sohtemu.Stats) bool { return st.Requests["readwrite"] == 1 })
	write(t, c, data)
	if receive(t, sums) != sha256.Sum256(data) {
		t.Error("the target got other bytes than sent")
	}
	mu.Lock()
	defer mu.Unlock()
	if carried["readwrite"] != 0 || carried["write"] < len(data)/(32<<10) {
		t.Errorf("the requests with data are %v", carried)
	}
}

// Either container's way of answering, with and without kept connections.
func TestContainers(t *testing.T) {
	modes(t, func(t *testing.T, mode string) {
		for name, o := range map[string]sohtemu.Options{
			"Tomcat":             {Container: sohtemu.Tomcat},
			"Jetty":              {Container: sohtemu.Jetty},
			"Jetty, none kept":   {Container: sohtemu.Jetty, Faults: sohtemu.Faults{NoKeepAlive: true}},
			"Tomcat, none kept":  {Container: sohtemu.Tomcat, Faults: sohtemu.Faults{NoKeepAlive: true}},
			"Jetty, NUL by NUL":  {Container: sohtemu.Jetty, Faults: sohtemu.Faults{ByteAtATime: true}},
			"Tomcat, NUL by NUL": {Container: sohtemu.Tomcat, Faults: sohtemu.Faults{ByteAtATime: true}},
		} {
			t.Run(name, func(t *testing.T) {
				o.IdlePoll = time.Millisecond
				s := emulate(t, o)
				data := bytes.Repeat([]byte("there and back\x00"), 5000)
				c := mustDial(t, towards(s, mode), nettest.Serve(t, nettest.Echo))
				go func() { _, _ = c.Write(data) }()
				if got := read(t, c, len(data)); !bytes.Equal(got, data) {
					t.Error("other bytes came than sent")
				}
				if got := readAll(t, mustDial(t, towards(s, mode), sender(t, data[:100]))); !bytes.Equal(got, data[:100]) {
					t.Errorf("got %q", got)
				}
			})
		}
	})
}

// halfClosing dials with that half_close.
func halfClosing(t *testing.T, s *sohtemu.Server, mode, target string, halfClose time.Duration) *sdktest.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := upstream(t, towards(s, mode)).DialWith(ctx, target, sdktest.DialOptions{HalfClose: halfClose})
	if err != nil {
		t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(patience))
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func awaitEnd(t *testing.T, c *sdktest.Conn) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	return c.AwaitEnd(ctx)
}

// Writes whose answers take many times half_close: all bytes arrive before the
// client's end of file ends the tunnel, and that is a clean end.
func TestHalfCloseWaitsForSlowWrites(t *testing.T) {
	modes(t, func(t *testing.T, mode string) {
		const halfClose = 10 * time.Millisecond
		s := emulate(t, sohtemu.Options{IdlePoll: time.Millisecond, Observe: func(f sohtemu.Form) {
			if f.Action == "write" {
				time.Sleep(10 * halfClose)
			}
		}})
		data := contents(150_000)["random"]
		got := make(chan []byte, 1)
		c := halfClosing(t, s, mode, nettest.Serve(t, func(c *net.TCPConn) {
			b, _ := io.ReadAll(c)
			got <- b
		}), halfClose)
		write(t, c, data)
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if b := receive(t, got); !bytes.Equal(b, data) {
			t.Errorf("%d bytes arrived, of %d", len(b), len(data))
		}
		if err := awaitEnd(t, c); err != nil {
			t.Errorf("end: %v", err)
		}
		eventually(t, s, "close", func(st sohtemu.Stats) bool { return st.Open == 0 })
	})
}

// In mode "stateless" the polls have become rare by the time that a slow write is
// answered. What the target says then is fetched before half_close is over, which is
// less than maxPause.
func TestHalfCloseOutlastsTheNextPoll(t *testing.T) {
	var mu sync.Mutex
	polls, writing := 0, false
	rare := make(chan struct{}) // closed when the next poll comes after maxPause
	s := emulate(t, sohtemu.Options{IdlePoll: time.Millisecond, Observe: func(f sohtemu.Form) {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case f.Action == "write":
			writing = true
			mu.Unlock()
			defer mu.Lock()
			<-rare
		case f.Action == "readwrite" && writing:
			if polls++; polls == 8 { // minPause has doubled often enough
				close(rare)
			}
		}
	}})
	c := halfClosing(t, s, modeStateless, nettest.Serve(t, func(c *net.TCPConn) {
		_, _ = io.ReadFull(c, make([]byte, 8))
		time.Sleep(50 * time.Millisecond) // that poll has been answered
		_, _ = c.Write([]byte("response"))
		_, _ = io.Copy(io.Discard, c)
	}), 1500*time.Millisecond)
	write(t, c, []byte("question"))
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got := readAll(t, c); string(got) != "response" {
		t.Errorf("got %q", got)
	}
}

// What the far end did not take makes the end an error: a client that has sent
// everything must not think that it arrived.
func TestHalfCloseOfAFailedWrite(t *testing.T) {
	modes(t, func(t *testing.T, mode string) {
		s := emulate(t, sohtemu.Options{IdlePoll: time.Millisecond})
		s.SetFaults(sohtemu.Faults{On: map[string]sohtemu.Fault{"write": {After: 1, Status: 502}}})
		c := halfClosing(t, s, mode, scriptedTarget(t), time.Millisecond)
		// Both fail where the tunnel has ended by then.
		_, _ = c.Write(make([]byte, 150_000))
		_ = c.CloseWrite()
		if err := awaitEnd(t, c); err == nil || !strings.Contains(err.Error(), "502") {
			t.Errorf("the daemon is told %v", err)
		}
	})
}
