//go:build interop

package interop

import (
	"bytes"
	"context"
	"crypto/sha256"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/nettest"
	"github.com/tunneld/tunneld/plugins/sdk/sdktest"
	"github.com/tunneld/tunneld/plugins/soht"
	"github.com/tunneld/tunneld/plugins/soht/sohtemu"
)

// patience bounds what a test waits for.
const patience = time.Minute

type values = map[string]any

var modes = []string{"stateful", "stateless"}

func emulate(t *testing.T, o sohtemu.Options) *sohtemu.Server {
	t.Helper()
	s, err := sohtemu.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func connect(t *testing.T, target string, v values, more values) (*sdktest.Conn, error) {
	t.Helper()
	v = maps.Clone(v)
	maps.Copy(v, more)
	u := sdktest.Start(t, soht.Plugin()).Configure(t, "test", v)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := u.Dial(ctx, target)
	if err == nil {
		_ = c.SetDeadline(time.Now().Add(patience))
		t.Cleanup(func() { _ = c.Close() })
	}
	return c, err
}

func mustConnect(t *testing.T, target string, v, more values) *sdktest.Conn {
	t.Helper()
	c, err := connect(t, target, v, more)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// contents are what goes through a tunnel in bulk.
func contents(n int) map[string][]byte {
	random := make([]byte, n)
	r := rand.NewChaCha8([32]byte{2})
	r.Read(random)
	return map[string][]byte{"random": random, "zeros": make([]byte, n)}
}

// pingPong plays it with messages that all end in NUL.
func pingPong(t *testing.T, v values) {
	t.Helper()
	target := nettest.Serve(t, func(c *net.TCPConn) {
		b := make([]byte, 6)
		for {
			if _, err := io.ReadFull(c, b); err != nil {
				return
			}
			if _, err := c.Write([]byte("pong \x00")); err != nil {
				return
			}
		}
	})
	c := mustConnect(t, target, v, nil)
	got := make([]byte, 6)
	start := time.Now()
	const rounds = 20
	for i := range rounds {
		if _, err := c.Write([]byte("ping \x00")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, got); err != nil || string(got) != "pong \x00" {
			t.Fatalf("round %d: %q, %v", i, got, err)
		}
	}
	t.Logf("ping-pong: %v a round", time.Since(start)/rounds)
}

// down has a target send data and end.
func down(t *testing.T, v values, data []byte) {
	t.Helper()
	c := mustConnect(t, nettest.Serve(t, func(c *net.TCPConn) {
		_, _ = c.Write(data)
		_ = c.CloseWrite()
		_, _ = io.Copy(io.Discard, c)
	}), v, nil)
	start := time.Now()
	got, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(got, data) {
		t.Fatalf("down: %d of %d bytes, %v", len(got), len(data), err)
	}
	t.Logf("down: %.1f MB/s", float64(len(data))/1e6/time.Since(start).Seconds())
	if err := c.AwaitEnd(t.Context()); err != nil {
		t.Errorf("down ended with %v", err)
	}
}

// up has a target take data, and answer at its end with what it got.
func up(t *testing.T, v values, data []byte) {
	t.Helper()
	c := mustConnect(t, nettest.Serve(t, func(c *net.TCPConn) {
		h := sha256.New()
		if n, err := io.CopyN(h, c, int64(len(data))); err != nil {
			t.Errorf("up: the target's connection ended after %d of %d bytes: %v", n, len(data), err)
			return
		}
		_, _ = c.Write(h.Sum(nil))
	}), v, nil)
	start := time.Now()
	if _, err := c.Write(data); err != nil {
		t.Fatalf("up: %v", err)
	}
	// The answer comes behind the client's end of file.
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(c)
	if want := sha256.Sum256(data); err != nil || !bytes.Equal(got, want[:]) {
		t.Fatalf("up: the target's answer to other bytes is %x, %v", got, err)
	}
	t.Logf("up: %.1f MB/s", float64(len(data))/1e6/time.Since(start).Seconds())
}

// both has a target echo data.
func both(t *testing.T, v values, data []byte) {
	t.Helper()
	c := mustConnect(t, nettest.Serve(t, nettest.Echo), v, nil)
	go func() { _, _ = c.Write(data) }()
	got := make([]byte, len(data))
	if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, data) {
		t.Fatalf("both ways: %v", err)
	}
}

// TestBulk carries 64 MiB each way in both modes. The server's polls idle
// shortly: how long it blocks bounds an upload in stateless mode and nothing
// else.
func TestBulk(t *testing.T) {
	s := emulate(t, sohtemu.Options{IdlePoll: time.Millisecond})
	for _, mode := range modes {
		for name, data := range contents(64 << 20) {
			t.Run(mode+"/"+name, func(t *testing.T) {
				v := values{"url": s.URL(), "mode": mode, "write_size": "64KiB"}
				down(t, v, data)
				up(t, v, data)
			})
		}
	}
}
