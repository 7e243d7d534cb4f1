package wsstream

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gobwas/ws"
	"go.uber.org/goleak"

	"github.com/tunneld/tunneld/internal/nettest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pair returns the two ends of a TCP connection.
func pair(t testing.TB) (client, server *net.TCPConn) {
	t.Helper()
	client, server = nettest.Pair(t)
	_ = server.SetDeadline(time.Now().Add(30 * time.Second))
	return client, server
}

func TestEmptyWriteSendsNothing(t *testing.T) {
	c, s := pair(t)
	conn := New(Options{Conn: c})
	if n, err := conn.Write(nil); n != 0 || err != nil {
		t.Errorf("Write(nil) = %d, %v", n, err)
	}
	if err := conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	h, err := ws.ReadHeader(s)
	if err != nil || h.OpCode != ws.OpClose {
		t.Errorf("the first frame is %+v, %v", h, err)
	}
	conn.Abort()
}

func TestWriteAfterCloseWrite(t *testing.T) {
	c, _ := pair(t)
	conn := New(Options{Conn: c})
	if err := errors.Join(conn.CloseWrite(), conn.CloseWrite()); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write([]byte("x")); !errors.Is(err, ErrWriteClosed) {
		t.Errorf("Write = %v, want %v", err, ErrWriteClosed)
	}
	conn.Abort()
	conn.Abort()
	if err := conn.Close(); err != nil {
		t.Errorf("Close after Abort = %v", err)
	}
}

// TestEndOfTheSocket: one that the system closes, as it does after a killed process,
// is reset; one that Close closes gets what was written, and an end.
func TestEndOfTheSocket(t *testing.T) {
	c, s := pair(t)
	New(Options{Conn: c})
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the system closes it: %v, want a reset", err)
	}

	c, s = pair(t)
	conn := New(Options{Conn: c})
	body := make([]byte, 1<<20)
	if _, err := conn.Write(body); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(conn.CloseWrite(), conn.Close()); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(s); err != nil || len(got) < len(body) {
		t.Errorf("Close: %d bytes, %v; want all and an end", len(got), err)
	}
}

func TestWriteLeavesItsArgumentAlone(t *testing.T) {
	c, s := pair(t)
	conn := New(Options{Conn: c})
	p := bytes.Repeat([]byte("data"), 1000)
	kept := bytes.Clone(p)
	if n, err := conn.Write(p); n != len(p) || err != nil {
		t.Fatalf("Write = %d, %v", n, err)
	}
	if !bytes.Equal(p, kept) {
		t.Error("Write masked the caller's bytes")
	}
	h, err := ws.ReadHeader(s)
	if err != nil || h.Length != int64(len(p)) {
		t.Fatalf("the frame is %+v, %v", h, err)
	}
	if _, err := io.ReadFull(s, p); err != nil || bytes.Equal(p, kept) {
		t.Errorf("the payload is not masked, or not there: %v", err)
	}
	if ws.Cipher(p, h.Mask, 0); !bytes.Equal(p, kept) {
		t.Error("the payload is another one")
	}
	conn.Abort()
}

func TestReadOneByteAtATime(t *testing.T) {
	c, s := pair(t)
	conn := New(Options{Conn: c})
	go func() {
		_ = ws.WriteFrame(s, ws.NewFrame(ws.OpBinary, false, []byte("he")))
		_ = ws.WriteFrame(s, ws.NewPingFrame([]byte("ping")))
		_ = ws.WriteFrame(s, ws.NewFrame(ws.OpContinuation, true, []byte("llo")))
		_ = ws.WriteFrame(s, ws.NewCloseFrame(nil))
	}()
	var got []byte
	for p := make([]byte, 1); ; {
		n, err := conn.Read(p)
		got = append(got, p[:n]...)
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if string(got) != "hello" {
		t.Errorf("read %q", got)
	}
	if _, err := conn.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("a further Read = %v", err)
	}
	conn.Abort()
}

// recorder is a net.Conn that counts writes and has nothing to read.
type recorder struct {
	net.Conn
	mu     sync.Mutex
	writes [][]byte
}

func (r *recorder) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.writes = append(r.writes, bytes.Clone(p))
	return len(p), nil
}

func (r *recorder) Close() error { return nil }

// pings waits until nothing runs and counts the pings so far.
func (r *recorder) pings() int {
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, w := range r.writes {
		if w[0] == 0x89 {
			n++
		}
	}
	return n
}

func TestPingEveryIntervalOfSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{}
		conn := New(Options{Conn: r, Ping: 30 * time.Second})
		time.Sleep(29 * time.Second)
		if n := r.pings(); n != 0 {
			t.Fatalf("%d pings before the interval was over", n)
		}
		time.Sleep(2 * time.Second)
		if n := r.pings(); n != 1 {
			t.Fatalf("%d pings after the interval, want 1", n)
		}
		// One direction with traffic is not enough: gateways time each.
		for range 4 {
			if _, err := conn.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Second)
		}
		if n := r.pings(); n != 2 {
			t.Errorf("%d pings in 71 s without anything received, want 2", n)
		}
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
}

func BenchmarkMask(b *testing.B) {
	for _, size := range []int{64, 4 << 10, 64 << 10} {
		b.Run(byteSize(size), func(b *testing.B) {
			p, frame := make([]byte, size), make([]byte, 0, size+ws.MaxHeaderSize)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := appendFrame(frame, ws.OpBinary, p); err != nil {
					b.Fatal(err)
				}
			}
		})
		// The bound: what moving the bytes alone costs.
		b.Run(byteSize(size)+"-copy", func(b *testing.B) {
			p, frame := make([]byte, size), make([]byte, 0, size+ws.MaxHeaderSize)
			b.SetBytes(int64(size))
			for b.Loop() {
				_ = append(frame, p...)
			}
		})
	}
}

func BenchmarkDecode(b *testing.B) {
	for _, size := range []int{64, 4 << 10, 64 << 10} {
		b.Run(byteSize(size), func(b *testing.B) {
			frame := ws.MustCompileFrame(ws.NewBinaryFrame(make([]byte, size)))
			p := make([]byte, len(frame))
			var d decoder
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				copy(p, frame)
				if n, err := d.decode(p, nil); n != size || err != nil {
					b.Fatal(n, err)
				}
			}
		})
	}
}

func byteSize(n int) string {
	if n < 1<<10 {
		return fmt.Sprintf("%dB", n)
	}
	return fmt.Sprintf("%dKiB", n>>10)
}
