package pluginhost

import (
	"context"
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
	"weak"

	"github.com/tunneld/tunneld/core/internal/tunnel"
	"github.com/tunneld/tunneld/plugins/sdk/sdktest/fixture"
)

// TestRelayKilled kills a relay's plugin in mid-download: the end of file is
// never taken for a clean one.
func TestRelayKilled(t *testing.T) {
	target := server(t, func(c *net.TCPConn) {
		block := make([]byte, 64<<10)
		for {
			if _, err := c.Write(block); err != nil {
				return
			}
		}
	})
	for _, form := range forms {
		t.Run(form, func(t *testing.T) {
			h := newHost(t, nil)
			p := h.start(t, spec(t, form, fixture.RelayName, nil))
			configure(t, p, 1, `{}`)
			c, err := dialTo(t, p, 1, target)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Relay.Ended()
			defer c.Stream.Close()
			if _, err := io.CopyN(io.Discard, c.Stream, 1<<20); err != nil {
				t.Fatal(err)
			}
			if err := syscall.Kill(p.State().PID, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			// A reset is an honest end; an end of file has to be asked about.
			if _, err := io.Copy(io.Discard, c.Stream); err == nil {
				begun := time.Now()
				if err := c.Relay.ConfirmEOF(); !errors.Is(err, tunnel.ErrPluginDied) || !strings.Contains(err.Error(), "signal: killed") {
					t.Errorf("confirmed with %v", err)
				}
				if d := time.Since(begun); d > 4*time.Second {
					t.Errorf("took %s", d)
				}
			}
			if err := c.Relay.ConfirmEnd(t.Context()); !errors.Is(err, tunnel.ErrPluginDied) {
				t.Errorf("confirmed with %v", err)
			}
			c.Relay.Abort("too late, and harmless")
		})
	}
}

// TestRelayForgetsItsDial has a relay open: nothing of what it was dialed with is
// kept for as long.
func TestRelayForgetsItsDial(t *testing.T) {
	h := newHost(t, nil)
	p := h.start(t, Spec{Name: fixture.RelayName, Bundled: true})
	configure(t, p, 1, `{}`)
	type key struct{}
	dial := func() (*tunnel.Conn, weak.Pointer[[64]byte]) {
		value := &[64]byte{}
		ctx, cancel := context.WithTimeout(context.WithValue(t.Context(), key{}, value), patience)
		defer cancel()
		c, err := dialStream(ctx, p.Dialer(1, "u"), tunnel.Dial{Target: echoServer(t)})
		if err != nil {
			t.Fatal(err)
		}
		return c, weak.Make(value)
	}
	c, kept := dial()
	// The goroutines of the call end in their own time.
	for begun := time.Now(); kept.Value() != nil; runtime.GC() {
		if time.Since(begun) > patience {
			t.Fatal("the open relay holds its dial's context")
		}
	}
	exchange(t, c, "still there")
}

// TestRelayAborted aborts a relay: the far end sees a reset.
func TestRelayAborted(t *testing.T) {
	seen := make(chan error, 1)
	target := server(t, func(c *net.TCPConn) {
		_, err := io.Copy(io.Discard, c)
		seen <- err
	})
	h := newHost(t, nil)
	p := h.start(t, Spec{Name: fixture.RelayName, Bundled: true})
	configure(t, p, 1, `{}`)
	c, err := dialTo(t, p, 1, target)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c.Stream, "half a sentence"); err != nil {
		t.Fatal(err)
	}
	c.Relay.Abort("the client was reset")
	_ = c.Stream.Close()
	c.Relay.Ended()
	select {
	case err := <-seen:
		if !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the far end saw %v", err)
		}
	case <-time.After(patience):
		t.Fatal("the far end saw nothing")
	}
}

// TestRelayFarEndReset has the far end break off: the plugin says so.
func TestRelayFarEndReset(t *testing.T) {
	target := server(t, func(c *net.TCPConn) {
		_, _ = io.WriteString(c, "half")
		_, _ = io.ReadFull(c, make([]byte, 1))
		_ = c.SetLinger(0)
	})
	h := newHost(t, nil)
	p := h.start(t, Spec{Name: fixture.RelayName, Bundled: true})
	configure(t, p, 1, `{}`)
	c, err := dialTo(t, p, 1, target)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Relay.Ended()
	defer c.Stream.Close()
	if _, err := io.ReadFull(c.Stream, make([]byte, 4)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c.Stream, "x"); err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, c.Stream)
	var end *EndError
	if err := c.Relay.ConfirmEOF(); !errors.As(err, &end) || end.Reason == "" {
		t.Errorf("confirmed with %v", err)
	}
	if err := c.Relay.ConfirmEnd(t.Context()); !errors.As(err, &end) {
		t.Errorf("confirmed with %v", err)
	}
}

// TestRelayUnannounced has a plugin close a relay without a word.
func TestRelayUnannounced(t *testing.T) {
	h := newHost(t, nil)
	h.waits.confirm = 50 * time.Millisecond
	p := h.start(t, rawSpec(""))
	configure(t, p, 1, `{}`)
	c, err := dialTo(t, p, 1, tunnel.Target{Host: "relay"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Relay.Ended()
	defer c.Stream.Close()
	if _, err := dialTo(t, p, 1, tunnel.Target{Host: "close the last"}); err == nil {
		t.Error("dial succeeded")
	}
	if _, err := c.Stream.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Fatalf("read: %v", err)
	}
	if err := c.Relay.ConfirmEOF(); err == nil || errors.Is(err, tunnel.ErrPluginDied) {
		t.Errorf("confirmed with %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := c.Relay.ConfirmEnd(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("confirmed with %v", err)
	}
}

// TestRelayAbortEndsWaits has the waits for the plugin's word end at once when
// the daemon breaks the tunnel off.
func TestRelayAbortEndsWaits(t *testing.T) {
	h := newHost(t, nil)
	h.waits.confirm = time.Hour
	p := h.start(t, rawSpec(""))
	configure(t, p, 1, `{}`)
	c, err := dialTo(t, p, 1, tunnel.Target{Host: "relay"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Relay.Ended()
	defer c.Stream.Close()
	results := make(chan error, 2)
	go func() { results <- c.Relay.ConfirmEOF() }()
	go func() { results <- c.Relay.ConfirmEnd(context.Background()) }()
	c.Relay.Abort("lifetime")
	for range 2 {
		if err := <-results; !errors.Is(err, errAborted) {
			t.Errorf("confirmed with %v", err)
		}
	}
}

// TestRelayStopped stops a plugin with a relay open: it breaks off, and says
// so.
func TestRelayStopped(t *testing.T) {
	h := newHost(t, nil)
	p := h.start(t, Spec{Name: fixture.RelayName, Bundled: true})
	configure(t, p, 1, `{}`)
	c, err := dialTo(t, p, 1, echoServer(t))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Relay.Ended()
	defer c.Stream.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	if err := p.Drain(ctx); err == nil {
		t.Error("drained with a relay open")
	}
	cancel()
	if err := p.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, c.Stream); err == nil {
		if err := c.Relay.ConfirmEOF(); err == nil {
			t.Error("a tunnel that was broken off ended cleanly")
		}
	}
}
