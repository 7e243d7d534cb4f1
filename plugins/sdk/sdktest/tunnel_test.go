package sdktest_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"hash"
	"io"
	"math/rand/v2"
	"net"
	"syscall"
	"testing"

	"github.com/tunneld/tunneld/internal/pluginwire"
	"github.com/tunneld/tunneld/plugins/sdk"
	"github.com/tunneld/tunneld/plugins/sdk/sdktest"
	"github.com/tunneld/tunneld/plugins/sdk/sdktest/fixture"
)

func TestPaths(t *testing.T) {
	want := map[string]sdktest.Path{
		fixture.DirectName: sdktest.PathDirect,
		fixture.RelayName:  sdktest.PathRelay,
	}
	both(t, func(t *testing.T, p sdk.Plugin) {
		c, far := dial(t, p, nil)
		if c.Path != want[p.Name] {
			t.Errorf("path is %s", c.Path)
		}
		if c.Remote != far.LocalAddr().String() || c.Local != far.RemoteAddr().String() {
			t.Errorf("ends are %s and %s, the far end sees %s and %s", c.Local, c.Remote, far.RemoteAddr(), far.LocalAddr())
		}
		if len(c.Stages) != 2 || c.Stages[0].Stage != sdk.StageConnect || c.Stages[1].Stage != sdk.StageHandshake {
			t.Errorf("stages are %v", c.Stages)
		}
		write(t, c, "ping")
		read(t, far, "ping")
		write(t, far, "pong")
		read(t, c, "pong")
	})
}

func TestHalfClose(t *testing.T) {
	both(t, func(t *testing.T, p sdk.Plugin) {
		t.Run("client first", func(t *testing.T) {
			c, far := dial(t, p, nil)
			write(t, c, "question")
			closeWrite(t, c)
			read(t, far, "question")
			readEOF(t, far)
			write(t, far, "answer")
			_ = far.Close()
			read(t, c, "answer")
			readEOF(t, c)
			if err := c.AwaitEnd(bounded(t)); err != nil {
				t.Error(err)
			}
		})
		t.Run("far end first", func(t *testing.T) {
			c, far := dial(t, p, nil)
			write(t, far, "greeting")
			closeWrite(t, far)
			read(t, c, "greeting")
			readEOF(t, c)
			write(t, c, "still here")
			closeWrite(t, c)
			read(t, far, "still here")
			readEOF(t, far)
			if err := c.AwaitEnd(bounded(t)); err != nil {
				t.Error(err)
			}
		})
	})
}

// A protocol without half-close: the client's end of file reaches CloseWrite,
// the far end's ends the tunnel.
func TestNoHalfClose(t *testing.T) {
	p := fixture.Relay()
	p.NoHalfClose = true
	t.Run("client first", func(t *testing.T) {
		c, far := dial(t, p, nil)
		closeWrite(t, c)
		readEOF(t, far)
		write(t, far, "answer")
		_ = far.Close()
		read(t, c, "answer")
		readEOF(t, c)
		if err := c.AwaitEnd(bounded(t)); err != nil {
			t.Error(err)
		}
	})
	t.Run("far end first", func(t *testing.T) {
		c, far := dial(t, p, nil)
		write(t, far, "bye")
		closeWrite(t, far)
		read(t, c, "bye")
		readEOF(t, c)
		if err := c.AwaitEnd(bounded(t)); err != nil {
			t.Error(err)
		}
		readEOF(t, far)
	})
	t.Run("far end first, client still sending", func(t *testing.T) {
		c, far := dial(t, p, nil)
		go func() { _, _ = io.Copy(c, endless{}) }()
		write(t, far, "bye")
		closeWrite(t, far)
		read(t, c, "bye")
		readEOF(t, c)
		if err := c.AwaitEnd(bounded(t)); err != nil {
			t.Error(err)
		}
	})
}

type endless struct{}

func (endless) Read(b []byte) (int, error) { return len(b), nil }

func TestAbort(t *testing.T) {
	both(t, func(t *testing.T, p sdk.Plugin) {
		t.Run("by the client", func(t *testing.T) {
			c, far := dial(t, p, nil)
			write(t, c, "half a ")
			read(t, far, "half a ")
			if err := c.Abort("reset"); err != nil {
				t.Fatal(err)
			}
			if _, err := far.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the far end reads %v, want a reset", err)
			}
		})
		t.Run("by the far end", func(t *testing.T) {
			c, far := dial(t, p, nil)
			write(t, far, "half a ")
			read(t, c, "half a ")
			reset(t, far)
			_, err := c.Read(make([]byte, 1))
			if err == nil || err == io.EOF {
				t.Errorf("the client reads %v, want an error", err)
			}
			if p.Name == fixture.RelayName && !errors.Is(err, sdktest.ErrNotClean) {
				t.Errorf("the client reads %v, want ErrNotClean", err)
			}
		})
		t.Run("by the far end after the client's end of file", func(t *testing.T) {
			c, far := dial(t, p, nil)
			closeWrite(t, c)
			readEOF(t, far)
			reset(t, far)
			if _, err := c.Read(make([]byte, 1)); err == nil || err == io.EOF {
				t.Errorf("the client reads %v, want an error", err)
			}
		})
	})
}

func reset(t *testing.T, c *net.TCPConn) {
	t.Helper()
	if err := c.SetLinger(0); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
}

// The daemon's death reads as plain end of file on the socketpair; the far end
// must see a reset.
func TestDaemonGone(t *testing.T) {
	for _, halfClosed := range []bool{false, true} {
		tg := newTarget(t)
		s := sdktest.Start(t, fixture.Relay())
		u := s.Configure(t, "up", nil)
		c, err := u.Dial(bounded(t), tg.addr())
		if err != nil {
			t.Fatal(err)
		}
		far := tg.accept()
		if halfClosed {
			closeWrite(t, far)
			readEOF(t, c)
		}
		// As the kernel would close them.
		if err := s.LoseDaemon(); err != nil {
			t.Fatal(err)
		}
		_ = c.Conn.Close()
		if _, err := far.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the far end reads %v, want a reset", err)
		}
	}
}

// The plugin's death reads as plain end of file, too; the client must see an
// error.
func TestPluginStops(t *testing.T) {
	tg := newTarget(t)
	s := sdktest.Start(t, fixture.Relay())
	c, err := s.Configure(t, "up", nil).Dial(bounded(t), tg.addr())
	if err != nil {
		t.Fatal(err)
	}
	deadline(t, c)
	far := tg.accept()
	write(t, far, "half a ")
	read(t, c, "half a ")
	s.Stop(t)
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, sdktest.ErrNotClean) {
		t.Errorf("the client reads %v, want ErrNotClean", err)
	}
	if _, err := far.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the far end reads %v, want a reset", err)
	}
	_ = c.Close()
}

// What a stream's code does wrong ends its own tunnel and no other.
func TestStreamPanics(t *testing.T) {
	for _, where := range []string{"read", "write"} {
		t.Run(where, func(t *testing.T) {
			tg := newTarget(t)
			s := sdktest.Start(t, fixture.Relay())
			good, err := s.Configure(t, "good", nil).Dial(bounded(t), tg.addr())
			if err != nil {
				t.Fatal(err)
			}
			deadline(t, good)
			defer good.Close()
			goodFar := tg.accept()
			bad, err := s.Configure(t, "bad", map[string]any{"panic_in": where}).Dial(bounded(t), tg.addr())
			if err != nil {
				t.Fatal(err)
			}
			deadline(t, bad)
			defer bad.Close()
			badFar := tg.accept()
			_, _ = bad.Write([]byte("x"))
			if _, err := bad.Read(make([]byte, 1)); !errors.Is(err, sdktest.ErrNotClean) {
				t.Errorf("the client reads %v, want ErrNotClean", err)
			}
			if _, err := io.Copy(io.Discard, badFar); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the far end reads %v, want a reset", err)
			}
			write(t, good, "ping")
			read(t, goodFar, "ping")
		})
	}
}

func TestPrefetched(t *testing.T) {
	for _, n := range []int{1, pluginwire.MaxPrefetched, pluginwire.MaxPrefetched + 1} {
		both(t, func(t *testing.T, p sdk.Plugin) {
			tg := newTarget(t)
			u := sdktest.Start(t, p).Configure(t, "up", map[string]any{"prefetch": n})
			sent := make([]byte, n+5)
			rand.NewChaCha8([32]byte{}).Read(sent)
			done := make(chan struct{})
			go func() {
				defer close(done)
				far, err := tg.l.AcceptTCP()
				if err != nil {
					t.Error(err)
					return
				}
				defer far.Close()
				if _, err := far.Write(sent); err != nil {
					t.Error(err)
				}
			}()
			c, err := u.Dial(bounded(t), tg.addr())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			deadline(t, c)
			<-done
			got, err := io.ReadAll(c)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, sent) {
				t.Errorf("%d bytes came, not the %d that were sent, or others", len(got), len(sent))
			}
			if want := n <= pluginwire.MaxPrefetched && p.Name == fixture.DirectName; want != (c.Path == sdktest.PathDirect) {
				t.Errorf("path is %s with %d bytes read ahead", c.Path, n)
			}
		})
	}
}

// Where the daemon takes relays only, a direct tunnel is relayed.
func TestDirectFallsBack(t *testing.T) {
	tg := newTarget(t)
	u := sdktest.Start(t, fixture.Direct()).Configure(t, "up", nil)
	c, err := u.DialWith(bounded(t), tg.addr(), sdktest.DialOptions{Accept: []sdktest.Path{sdktest.PathRelay}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	deadline(t, c)
	if c.Path != sdktest.PathRelay {
		t.Errorf("path is %s", c.Path)
	}
	far := tg.accept()
	write(t, c, "ping")
	closeWrite(t, c)
	read(t, far, "ping")
	readEOF(t, far)
	_ = far.Close()
	readEOF(t, c)
}

// 64 MiB of random bytes each way at once, compared by hash.
func TestBulk(t *testing.T) {
	size := int64(64 << 20)
	if testing.Short() {
		size = 4 << 20
	}
	both(t, func(t *testing.T, p sdk.Plugin) {
		c, far := dial(t, p, nil)
		sums := make(chan [2][]byte, 2)
		carry := func(from io.ReadCloser, to interface {
			io.Writer
			CloseWrite() error
		}, seed byte) {
			sent, got := sha256.New(), make(chan hash.Hash, 1)
			go func() {
				h := sha256.New()
				if _, err := io.Copy(h, from); err != nil {
					t.Error(err)
				}
				got <- h
			}()
			random := io.LimitReader(rand.NewChaCha8([32]byte{seed}), size)
			if _, err := io.CopyBuffer(onlyWriter{to}, io.TeeReader(random, sent), make([]byte, 100_000)); err != nil {
				t.Error(err)
			}
			if err := to.CloseWrite(); err != nil {
				t.Error(err)
			}
			sums <- [2][]byte{sent.Sum(nil), (<-got).Sum(nil)}
		}
		go carry(far, c, 1)
		go carry(c, far, 2)
		for range 2 {
			if s := <-sums; !bytes.Equal(s[0], s[1]) {
				t.Error("what was sent is not what came")
			}
		}
	})
}

type onlyWriter struct{ io.Writer }
