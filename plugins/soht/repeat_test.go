package soht

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tunneld/tunneld/internal/nettest"
	"github.com/tunneld/tunneld/plugins/sdk"
	"github.com/tunneld/tunneld/plugins/sdk/sdktest"
	"github.com/tunneld/tunneld/plugins/soht/sohtemu"
)

// awaitUnreleased waits until the daemon is told of so many closes without an
// answer.
func awaitUnreleased(t *testing.T, u *sdktest.Upstream, n int) sdk.Status {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	return u.AwaitStatus(ctx, t, func(s sdk.Status) bool { return s.Unreleased == n })
}

// A close that a gateway answers in the server's place is repeated until the
// server has it, and the daemon is told meanwhile.
func TestCloseIsRepeated(t *testing.T) {
	modes(t, func(t *testing.T, mode string) {
		s := emulate(t, sohtemu.Options{IdlePoll: time.Millisecond})
		u := upstream(t, towards(s, mode))
		c, err := u.Dial(t.Context(), nettest.Serve(t, nettest.Echo))
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(patience))
		s.SetFaults(sohtemu.Faults{On: map[string]sohtemu.Fault{"close": {Status: http.StatusServiceUnavailable}}})
		_ = c.Close()
		if st := awaitUnreleased(t, u, 1); st.Health != sdk.HealthOK {
			t.Errorf("the upstream is %v", st.Health)
		}
		if s.Stats().Open != 1 {
			t.Fatalf("the server has %+v", s.Stats())
		}
		s.SetFaults(sohtemu.Faults{})
		awaitUnreleased(t, u, 0)
		if s.Stats().Open != 0 {
			t.Errorf("the server has %+v", s.Stats())
		}
	})
}

// With all threads of the server in a read nothing is served, not even the close
// that would free one. Once a target ends they all come back.
func TestThreadsComeBack(t *testing.T) {
	const threads = 4
	s := emulate(t, sohtemu.Options{Threads: threads})
	u := upstream(t, towards(s, modeStateful))
	addr, conns := scripted(t)
	var open []net.Conn
	for range threads {
		c, err := u.Dial(t.Context(), addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		open = append(open, c)
	}
	eventually(t, s, "reads", func(st sohtemu.Stats) bool { return st.Threads == threads && st.Requests["read"] == threads })
	for _, c := range open {
		_ = c.Close()
	}
	awaitUnreleased(t, u, threads)
	if st := s.Stats(); st.Open != threads || st.Requests["close"] != 0 {
		t.Fatalf("a close was served without a thread: %+v", st)
	}
	_ = receive(t, conns).CloseWrite()
	eventually(t, s, "threads", func(st sohtemu.Stats) bool { return st.Open == 0 && st.Threads == 0 })
	awaitUnreleased(t, u, 0)
}

// A server that is gone is asked less and less often, one close at a time, and not
// for ever; the log has two lines of it.
func TestCloseIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer // written with the repeater's lock held
		var last atomic.Int64
		c := &Config{URL: "http://127.0.0.1:1/"}
		c.repeats.tellTo(slog.New(slog.NewTextHandler(&log, nil)), func(n int) { last.Store(int64(n)) })
		cl, err := c.client(&sdk.Request{})
		if err != nil {
			t.Fatal(err)
		}
		var tries atomic.Int64
		cl.transport.Load().DialContext = func(context.Context, string, string) (net.Conn, error) {
			tries.Add(1)
			return nil, errors.New("nobody is there")
		}
		start := time.Now()
		for _, id := range []string{"1", "2", "3"} {
			if err := cl.release(t.Context(), id); err == nil {
				t.Fatal("it was answered")
			}
		}
		time.Sleep(closeLife - time.Since(start))
		synctest.Wait()
		if n := tries.Load(); last.Load() != 3 || n < 3+8 || n > 3+25 {
			t.Errorf("%d are left after %d tries", last.Load(), n)
		}
		time.Sleep(lastRepeat)
		synctest.Wait()
		if n := last.Load(); n != 0 {
			t.Errorf("%d are left after their time", n)
		}
		c.repeats.mu.Lock()
		got := log.String()
		c.repeats.mu.Unlock()
		if strings.Count(got, "\n") != 2 || !strings.Contains(got, "level=WARN") || !strings.Contains(got, "nobody is there") || !strings.Contains(got, "given_up=3") {
			t.Errorf("the log has\n%s", got)
		}
	})
}

// What is kept of a server that is gone is bounded, also while one of it is being
// tried, and gone once its time is over, however much it is.
func TestRepeatsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &Config{URL: "http://127.0.0.1:1/"}
		cl, err := c.client(&sdk.Request{})
		if err != nil {
			t.Fatal(err)
		}
		const takes = repeatTimeout / 2
		cl.transport.Load().DialContext = func(context.Context, string, string) (net.Conn, error) {
			time.Sleep(takes)
			return nil, errors.New("nobody is there")
		}
		kept := func() int {
			c.repeats.mu.Lock()
			defer c.repeats.mu.Unlock()
			return len(c.repeats.queue)
		}
		c.repeats.add(cl, "1", io.EOF)
		time.Sleep(firstRepeat + takes/2) // it is being tried
		for range maxRepeats + 5 {
			c.repeats.add(cl, "2", io.EOF)
		}
		time.Sleep(takes)
		for range 5 {
			c.repeats.add(cl, "3", io.EOF)
		}
		if n := kept(); n != maxRepeats {
			t.Errorf("%d are kept", n)
		}
		time.Sleep(closeLife + lastRepeat + takes)
		synctest.Wait()
		if n := kept(); n != 0 {
			t.Errorf("%d are left after their time", n)
		}
	})
}
