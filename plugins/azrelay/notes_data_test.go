package azrelay_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/gobwas/ws"

	"github.com/tunneld/tunneld/internal/nettest"
	"github.com/tunneld/tunneld/plugins/azrelay/azrelayemu"
	"github.com/tunneld/tunneld/plugins/sdk/sdktest"
)

// The tests of this file are named after the lines of the protocol's notes on
// data.

func readAll(t *testing.T, c *sdktest.Conn) string {
	t.Helper()
	b, err := io.ReadAll(c)
	if err != nil {
		t.Errorf("read after %d bytes: %v", len(b), err)
	}
	return string(b)
}

// finish ends the client's direction as the last one.
func finish(t *testing.T, c *sdktest.Conn) {
	t.Helper()
	if err := c.CloseWrite(); err != nil {
		t.Error(err)
	}
	if err := c.AwaitEnd(within(t)); err != nil {
		t.Errorf("the tunnel's end: %v", err)
	}
}

func TestBinaryMessagesCarryTheBytesAndBordersMeanNothing(t *testing.T) {
	big := strings.Repeat("0123456789abcdef", 1<<16) // 1 MiB in one message
	for _, tt := range []struct {
		name   string
		frames []ws.Frame
		want   string
	}{
		{"binary messages", []ws.Frame{ws.NewBinaryFrame([]byte("a")), ws.NewBinaryFrame([]byte("bc"))}, "abc"},
		{"accept text messages", []ws.Frame{ws.NewTextFrame([]byte("text \xff")), ws.NewBinaryFrame([]byte("!"))}, "text \xff!"},
		{"fragments", []ws.Frame{
			ws.NewFrame(ws.OpBinary, false, []byte("1")), ws.NewFrame(ws.OpContinuation, false, []byte("2")),
			ws.NewFrame(ws.OpContinuation, true, []byte("3")), ws.NewBinaryFrame([]byte("4"))}, "1234"},
		{"fragments with pings between them", []ws.Frame{
			ws.NewFrame(ws.OpText, false, []byte("1")), ws.NewPingFrame([]byte("p")),
			ws.NewFrame(ws.OpContinuation, true, []byte("2")), ws.NewPongFrame(nil)}, "12"},
		{"messages of 64 KiB and more", []ws.Frame{ws.NewBinaryFrame([]byte(big)), ws.NewBinaryFrame([]byte("end"))}, big + "end"},
		{"empty messages", []ws.Frame{ws.NewBinaryFrame(nil), ws.NewFrame(ws.OpText, false, nil), ws.NewFrame(ws.OpContinuation, true, []byte("x")), ws.NewBinaryFrame(nil)}, "x"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			endpoint := scripted(t, nil, func(p *peer) {
				p.send(tt.frames...)
				p.send(closeFrame(ws.StatusNormalClosure, ""))
				p.want(ws.OpClose)
			})
			c := dial(t, upstream(t, plain(endpoint, nil)), "label")
			if got := readAll(t, c); got != tt.want {
				t.Errorf("read %d bytes, want %d", len(got), len(tt.want))
			}
			finish(t, c)
		})
	}
}

func TestFramesInThePacketOfThe101(t *testing.T) {
	ahead := append(ws.MustCompileFrame(ws.NewBinaryFrame([]byte("banner"))), ws.MustCompileFrame(closeFrame(ws.StatusNormalClosure, ""))...)
	endpoint := scripted(t, ahead, func(p *peer) { p.want(ws.OpClose) })
	c := dial(t, upstream(t, plain(endpoint, nil)), "label")
	if got := readAll(t, c); got != "banner" {
		t.Errorf("read %q", got)
	}
	finish(t, c)
}

func TestAnswerPings(t *testing.T) {
	answered := make(chan struct{})
	endpoint := scripted(t, nil, func(p *peer) {
		p.send(ws.NewPingFrame([]byte("are you there")))
		if f, _ := p.want(ws.OpPong); string(f.Payload) != "are you there" {
			p.t.Errorf("pong %q", f.Payload)
		}
		close(answered)
		p.want(ws.OpClose)
		// A ping after the other side's Close is answered, too (RFC 6455, 5.5.2).
		p.send(ws.NewPingFrame([]byte("half-closed")))
		if f, _ := p.want(ws.OpPong); string(f.Payload) != "half-closed" {
			p.t.Errorf("pong %q", f.Payload)
		}
		p.finish()
	})
	c := dial(t, upstream(t, plain(endpoint, nil)), "label")
	<-answered
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	readAll(t, c)
}

// A far end that writes pings and reads nothing must not stop what it sends.
func TestPingsDoNotBlockReading(t *testing.T) {
	const n = 1 << 20
	endpoint := scripted(t, nil, func(p *peer) {
		for range n / 1024 {
			p.send(ws.NewPingFrame(bytes.Repeat([]byte("p"), 125)), ws.NewBinaryFrame(make([]byte, 1024)))
		}
		p.send(closeFrame(ws.StatusNormalClosure, ""))
		p.want(ws.OpClose)
	})
	c := dial(t, upstream(t, plain(endpoint, nil)), "label")
	if got := readAll(t, c); len(got) != n {
		t.Errorf("read %d bytes, want %d", len(got), n)
	}
	finish(t, c)
}

func TestPingWhereNothingFlows(t *testing.T) {
	pinged := make(chan struct{})
	endpoint := scripted(t, nil, func(p *peer) {
		for range 4 {
			p.want(ws.OpPing)
			p.send(ws.NewPongFrame(nil))
		}
		p.send(closeFrame(ws.StatusNormalClosure, ""))
		p.want(ws.OpPing) // the client may still send, so the connection has to stay open
		close(pinged)
		p.want(ws.OpClose)
	})
	c := dial(t, upstream(t, plain(endpoint, map[string]any{"ping_interval": "20ms", "ping_timeout": "1m"})), "label")
	readAll(t, c)
	<-pinged
	finish(t, c)
}

// By default two intervals without a byte or an answer are the end, and no clean
// one: for the client, and for the target behind the listener.
func TestUnansweredPingEndsTheTunnelAtBothEnds(t *testing.T) {
	ended := make(chan error, 1)
	far := nettest.Serve(t, func(c *net.TCPConn) {
		_, err := io.Copy(io.Discard, c)
		ended <- err
	})
	s := startEmulator(t, azrelayemu.Options{
		TLS:     true,
		Forward: []azrelayemu.Forward{{HybridConnection: "hc1", Target: far}},
		Faults:  azrelayemu.Faults{DropPings: true},
	})
	c := dial(t, upstream(t, body(t, s, map[string]any{"ping_interval": "100ms"})), "label")
	_, err := io.ReadAll(c)
	if !errors.Is(err, sdktest.ErrNotClean) || !strings.Contains(err.Error(), "no answer to a ping for 200ms") {
		t.Errorf("the client's end: %v", err)
	}
	if err := <-ended; !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the target's end: %v", err)
	}
}

func TestPingAfterItsOwnClose(t *testing.T) {
	endpoint := scripted(t, nil, func(p *peer) {
		p.want(ws.OpClose)
		p.want(ws.OpPing)
		p.send(ws.NewBinaryFrame([]byte("late answer")))
		p.finish()
	})
	c := dial(t, upstream(t, plain(endpoint, map[string]any{"ping_interval": "20ms", "ping_timeout": "1m"})), "label")
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got := readAll(t, c); got != "late answer" {
		t.Errorf("read %q", got)
	}
}

func TestACloseFrameIsTCPsFIN(t *testing.T) {
	t.Run("to half-close, send Close and go on reading until the peer's Close", func(t *testing.T) {
		endpoint := scripted(t, nil, func(p *peer) {
			f, data := p.want(ws.OpClose)
			if code, _ := ws.ParseCloseFrameData(f.Payload); code != 1000 || string(data) != "request" {
				p.t.Errorf("Close with %d after %q", code, data)
			}
			for range 3 {
				p.send(ws.NewBinaryFrame([]byte("answer ")))
			}
			p.finish()
		})
		c := dial(t, upstream(t, plain(endpoint, nil)), "label")
		if _, err := io.WriteString(c, "request"); err != nil {
			t.Fatal(err)
		}
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if got := readAll(t, c); got != "answer answer answer " {
			t.Errorf("read %q", got)
		}
	})
	t.Run("on receiving Close do not answer while there is data to send", func(t *testing.T) {
		upload := strings.Repeat("upload", 1000)
		endpoint := scripted(t, nil, func(p *peer) {
			p.send(ws.NewBinaryFrame([]byte("answer")), closeFrame(ws.StatusNormalClosure, ""))
			if _, data := p.want(ws.OpClose); string(data) != upload {
				p.t.Errorf("%d bytes came before the Close", len(data))
			}
		})
		c := dial(t, upstream(t, plain(endpoint, nil)), "label")
		if got := readAll(t, c); got != "answer" {
			t.Errorf("read %q", got)
		}
		if _, err := io.WriteString(c, upload); err != nil {
			t.Fatal(err)
		}
		finish(t, c)
	})
}

func TestCloseCodes(t *testing.T) {
	for _, tt := range []struct {
		name  string
		last  []ws.Frame
		clean bool
	}{
		{"1000 the listener closed", []ws.Frame{closeFrame(1000, "")}, true},
		{"no code", []ws.Frame{ws.NewCloseFrame(nil)}, true},
		{"1001 the path was deleted", []ws.Frame{closeFrame(1001, "deleted")}, false},
		{"1008 the token expired", []ws.Frame{closeFrame(1008, "expired")}, false},
		{"1011 error in the service", []ws.Frame{closeFrame(1011, "")}, false},
		{"any other", []ws.Frame{closeFrame(4711, "")}, false},
		{"half a code", []ws.Frame{ws.NewCloseFrame([]byte{3})}, false},
		{"no Close at all", nil, false},
		{"masked", []ws.Frame{ws.MaskFrame(ws.NewBinaryFrame([]byte("x")))}, false},
		{"reserved opcode", []ws.Frame{ws.NewFrame(3, true, nil)}, false},
		{"reserved bits", []ws.Frame{{Header: ws.Header{Fin: true, Rsv: ws.Rsv(true, false, false), OpCode: ws.OpBinary}}}, false},
		{"continuation of nothing", []ws.Frame{ws.NewFrame(ws.OpContinuation, true, nil)}, false},
		{"a message within a message", []ws.Frame{ws.NewFrame(ws.OpText, false, nil), ws.NewBinaryFrame(nil)}, false},
		{"a fragmented ping", []ws.Frame{ws.NewFrame(ws.OpPing, false, nil)}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			endpoint := scripted(t, nil, func(p *peer) {
				p.send(ws.NewBinaryFrame([]byte("data")))
				p.send(tt.last...)
				if tt.clean {
					p.want(ws.OpClose)
					return
				}
				_ = p.conn.CloseWrite()
				p.drain()
			})
			c := dial(t, upstream(t, plain(endpoint, nil)), "label")
			if tt.clean {
				if got := readAll(t, c); got != "data" {
					t.Errorf("read %q", got)
				}
				finish(t, c)
				return
			}
			if _, err := io.ReadAll(c); !errors.Is(err, sdktest.ErrNotClean) {
				t.Errorf("the end was %v, want %v", err, sdktest.ErrNotClean)
			}
		})
	}
}

func TestAnAbortedClientNeverLooksLikeACleanEnd(t *testing.T) {
	for _, written := range []string{"", "some data"} {
		ended := make(chan error, 1)
		endpoint := scripted(t, nil, func(p *peer) {
			for {
				f, ok := p.frame()
				if !ok {
					ended <- p.err
					return
				}
				if f.Header.OpCode == ws.OpClose {
					ended <- errors.New("a Close frame came")
					return
				}
			}
		})
		c := dial(t, upstream(t, plain(endpoint, nil)), "label")
		if _, err := io.WriteString(c, written); err != nil {
			t.Fatal(err)
		}
		if err := c.Abort("the client went away"); err != nil {
			t.Fatal(err)
		}
		if err := <-ended; !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the far end saw %v", err)
		}
	}
}

func TestNeitherEmptyMessagesNorDeflate(t *testing.T) {
	endpoint := scripted(t, nil, func(p *peer) {
		if got := p.req.Header.Get("Sec-WebSocket-Extensions"); got != "" {
			p.t.Errorf("extensions %q were offered", got)
		}
		for {
			f, ok := p.frame()
			if !ok {
				return
			}
			switch {
			case f.Header.OpCode == ws.OpClose:
				p.finish()
				return
			case f.Header.OpCode != ws.OpBinary || !f.Header.Fin || len(f.Payload) == 0:
				p.t.Errorf("a frame %+v", f.Header)
			}
		}
	})
	c := dial(t, upstream(t, plain(endpoint, nil)), "label")
	for _, n := range []int{0, 1, 0, 1 << 16, 1<<17 + 1, 0} {
		if _, err := c.Write(make([]byte, n)); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	readAll(t, c)
}

// bulkSize is 64 MiB, and less where the race detector makes it slow.
func bulkSize() int64 {
	if raceEnabled {
		return 8 << 20
	}
	return 64 << 20
}

func TestBulkBothWaysWithHalfCloseInEitherOrder(t *testing.T) {
	n := bulkSize()
	for _, tt := range []struct {
		name        string
		tls         bool
		framing     string
		clientFirst bool
	}{
		{"ws raw, the client ends first", false, "raw", true},
		{"ws raw, the listener ends first", false, "raw", false},
		{"wss raw, the client ends first", true, "raw", true},
		{"wss raw, the listener ends first", true, "raw", false},
		{"wss azbridge, the client ends first", true, "azbridge", true},
		{"wss azbridge, the listener ends first", true, "azbridge", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			up, _ := sum(t, stream(1, n))
			down, _ := sum(t, stream(2, n))
			served := make(chan struct{})
			first := make(chan struct{}) // closed when the side that ends first has been read to its end
			service := nettest.Serve(t, func(c *net.TCPConn) {
				defer close(served)
				var wg sync.WaitGroup
				wg.Go(func() {
					got, m := sum(t, c)
					if got != up || m != n {
						t.Errorf("%d bytes came up", m)
					}
					if tt.clientFirst {
						close(first)
					}
				})
				if tt.clientFirst {
					half(t, c, stream(2, n), n, first)
				} else {
					half(t, c, stream(2, n), n, nil)
				}
				wg.Wait()
			})
			forward := azrelayemu.Forward{HybridConnection: "hc1", Framing: tt.framing, Target: service, Ports: map[string]string{"5432": service}}
			s := startEmulator(t, azrelayemu.Options{TLS: tt.tls, Forward: []azrelayemu.Forward{forward}})
			c := dial(t, upstream(t, body(t, s, map[string]any{"framing": tt.framing})), "db:5432")
			var wg sync.WaitGroup
			wg.Go(func() {
				got, m := sum(t, c)
				if got != down || m != n {
					t.Errorf("%d bytes came down", m)
				}
				if !tt.clientFirst {
					close(first)
				}
			})
			if tt.clientFirst {
				half(t, c, stream(1, n), n, nil)
			} else {
				half(t, c, stream(1, n), n, first)
			}
			wg.Wait()
			if err := c.AwaitEnd(within(t)); err != nil {
				t.Errorf("the tunnel's end: %v", err)
			}
			<-served
		})
	}
}

// half sends n bytes and ends the direction; the second half of them only once
// after is closed, where it is not nil.
func half(t *testing.T, c interface {
	io.Writer
	CloseWrite() error
}, src io.Reader, n int64, after <-chan struct{}) {
	t.Helper()
	w := struct{ io.Writer }{c}
	_, err := io.CopyN(w, src, n/2)
	if err == nil && after != nil {
		<-after
	}
	if err == nil {
		_, err = io.Copy(w, src)
	}
	if err == nil {
		err = c.CloseWrite()
	}
	if err != nil {
		t.Errorf("send: %v", err)
	}
}
