package websocks

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tunneld/tunneld/plugins/sdk/sdktest"
	"github.com/tunneld/tunneld/plugins/websocks/websocksemu"
)

// servers are what a tunnel's ends have to pass through, all alike.
var servers = map[string]struct {
	options websocksemu.Options
	values  values
}{
	"ws":                          {},
	"wss":                         {options: websocksemu.Options{TLS: true}},
	"wss, TLS 1.3":                {options: websocksemu.Options{TLS: true, Faults: websocksemu.Faults{TLS13: true}}},
	"wss, close_notify":           {options: websocksemu.Options{TLS: true, Faults: websocksemu.Faults{CloseNotify: true}}},
	"wss, TLS 1.3, close_notify":  {options: websocksemu.Options{TLS: true, Faults: websocksemu.Faults{TLS13: true, CloseNotify: true}}},
	"wss, close_notify, required": {options: websocksemu.Options{TLS: true, Faults: websocksemu.Faults{CloseNotify: true}}, values: values{"require_close_notify": true}},
}

// throughAll runs a test with a tunnel through each server.
func throughAll(t *testing.T, test func(t *testing.T, c *sdktest.Conn, target func() *net.TCPConn)) {
	for name, s := range servers {
		t.Run(name, func(t *testing.T) {
			c, target := pairThrough(t, s.options, s.values)
			test(t, c, target)
		})
	}
}

func closeWrite(t *testing.T, c interface{ CloseWrite() error }) {
	t.Helper()
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
}

// expectAll wants exactly these bytes up to a clean end.
func expectAll(t *testing.T, who string, c io.Reader, want []byte) {
	t.Helper()
	if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s received %d bytes, equal %t: %v", who, len(got), bytes.Equal(got, want), err)
	}
}

func expectCleanEnd(t *testing.T, c *sdktest.Conn) {
	t.Helper()
	if err := c.AwaitEnd(within(t)); err != nil {
		t.Errorf("end: %v", err)
	}
}

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return b
}

// TestSendAndHalfClose is a client that sends, half-closes and waits for the
// answer: `nc -N`.
func TestSendAndHalfClose(t *testing.T) {
	question := random(3000)
	for n := 0; n < 20 && !t.Failed(); n++ {
		throughAll(t, func(t *testing.T, c *sdktest.Conn, target func() *net.TCPConn) {
			send(t, c, string(question))
			closeWrite(t, c)
			up := target()
			expectAll(t, "the target", up, question)
			send(t, up, "answer")
			closeWrite(t, up)
			expectAll(t, "the client", c, []byte("answer"))
			expectCleanEnd(t, c)
		})
	}
}

// TestBothWaysAtOnce has each side send on while it receives, and end when it has
// sent everything.
func TestBothWaysAtOnce(t *testing.T) {
	throughAll(t, func(t *testing.T, c *sdktest.Conn, target func() *net.TCPConn) {
		up, down := random(5<<20), random(5<<20)
		send(t, c, string(up[:1]))
		far := target()
		var wait sync.WaitGroup
		wait.Go(func() { expectAll(t, "the target", far, up) })
		wait.Go(func() { expectAll(t, "the client", c, down) })
		_, err1 := c.Write(up[1:])
		wait.Go(func() {
			_, err := far.Write(down)
			if err := errors.Join(err, far.CloseWrite()); err != nil {
				t.Errorf("the target sends: %v", err)
			}
		})
		if err := errors.Join(err1, c.CloseWrite()); err != nil {
			t.Errorf("the client sends: %v", err)
		}
		wait.Wait()
		expectCleanEnd(t, c)
	})
}

// TestUploadAndClose is a client that is gone once it has sent everything: the
// target learns of it, and the tunnel is over as soon as the target closes too.
func TestUploadAndClose(t *testing.T) {
	throughAll(t, func(t *testing.T, c *sdktest.Conn, target func() *net.TCPConn) {
		data := random(1 << 20)
		sent := make(chan error, 1)
		go func() {
			_, err := c.Write(data)
			sent <- errors.Join(err, c.CloseWrite())
		}()
		up := target()
		expectAll(t, "the target", up, data)
		if err := <-sent; err != nil {
			t.Errorf("send: %v", err)
		}
		_ = up.Close()
		expectAll(t, "the client", c, nil)
		expectCleanEnd(t, c)
	})
}

// TestLingeringHalfOpen has one direction used for long after the other's end.
func TestLingeringHalfOpen(t *testing.T) {
	throughAll(t, func(t *testing.T, c *sdktest.Conn, target func() *net.TCPConn) {
		send(t, c, "x")
		up := target()
		closeWrite(t, up)
		expectAll(t, "the client", c, nil)
		expect(t, up, "x")
		for n := range 3 {
			expectSilence(t, up)
			line := fmt.Sprintf("late line %d\n", n)
			send(t, c, line)
			expect(t, up, line)
		}
		closeWrite(t, c)
		expectAll(t, "the target", up, nil)
		expectCleanEnd(t, c)
	})
	throughAll(t, func(t *testing.T, c *sdktest.Conn, target func() *net.TCPConn) {
		send(t, c, "x")
		closeWrite(t, c)
		up := target()
		expectAll(t, "the target", up, []byte("x"))
		for n := range 3 {
			expectSilence(t, c)
			line := fmt.Sprintf("after-eof %d\n", n)
			send(t, up, line)
			expect(t, c, line)
		}
		_ = up.Close()
		expectAll(t, "the client", c, nil)
		expectCleanEnd(t, c)
	})
}

// TestRequireCloseNotify: the original's end is then an error, for both sides.
func TestRequireCloseNotify(t *testing.T) {
	for name, f := range map[string]websocksemu.Faults{"TLS 1.2": {}, "TLS 1.3": {TLS13: true}} {
		t.Run(name, func(t *testing.T) {
			c, target := pairThrough(t, websocksemu.Options{TLS: true, Faults: f}, values{"require_close_notify": true})
			send(t, c, "question")
			up := target()
			expect(t, up, "question")
			send(t, up, "answer")
			closeWrite(t, up)
			if got, err := io.ReadAll(c); string(got) != "answer" || !errors.Is(err, sdktest.ErrNotClean) {
				t.Errorf("the client received %q (%v), want the answer and an end that is not clean", got, err)
			}
			if err := c.AwaitEnd(within(t)); err == nil || !strings.Contains(err.Error(), "close_notify") {
				t.Errorf("the daemon is told %v, want close_notify named", err)
			}
			if rest, err := io.ReadAll(up); len(rest) > 0 || !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the target received %q (%v), want a reset", rest, err)
			}
		})
	}
}

// TestTruncatedRecord cuts the server's stream within a record, which no end of
// file explains.
func TestTruncatedRecord(t *testing.T) {
	for name, s := range servers {
		if !s.options.TLS {
			continue
		}
		t.Run(name, func(t *testing.T) {
			server := emulate(t, s.options)
			address, cut := cutter(t, server.Address())
			c := mustDial(t, towards(server, s.values, values{"url": "wss://" + address}), websocksemu.EchoTarget)
			send(t, c, "whole")
			expect(t, c, "whole")
			cut()
			send(t, c, "cut")
			if got, err := io.ReadAll(c); len(got) > 0 || !errors.Is(err, sdktest.ErrNotClean) {
				t.Errorf("received %q (%v), want an end that is not clean", got, err)
			}
		})
	}
}

// cutter passes one connection on to an address. After cut, it ends what comes
// from there within the next TLS record.
func cutter(t *testing.T, to string) (address string, cut func()) {
	t.Helper()
	l := listen(t)
	asked := make(chan struct{})
	var wait sync.WaitGroup
	wait.Go(func() {
		near, err := l.AcceptTCP()
		if err != nil {
			return
		}
		defer near.Close()
		far, err := net.Dial("tcp", to)
		if err != nil {
			t.Errorf("dial: %v", err)
			return
		}
		defer far.Close()
		wait.Go(func() {
			_, _ = io.Copy(far, near)
			_ = far.Close()
		})
		if err := passRecords(near, far, asked); err != nil {
			t.Errorf("pass records on: %v", err)
		}
		_ = near.CloseWrite()
		_ = near.SetReadDeadline(time.Now().Add(patience))
		_, _ = io.Copy(io.Discard, far) // until the client has closed
	})
	t.Cleanup(func() {
		_ = l.Close()
		wait.Wait()
	})
	return l.Addr().String(), func() { close(asked) }
}

// passRecords copies TLS records (RFC 8446, section 5.1), and half of the one that
// comes once the cut was asked for.
func passRecords(to io.Writer, from io.Reader, cut <-chan struct{}) error {
	for {
		var record bytes.Buffer
		if _, err := io.CopyN(&record, from, 5); err != nil {
			return err
		}
		length := int64(binary.BigEndian.Uint16(record.Bytes()[3:]))
		if _, err := io.CopyN(&record, from, length); err != nil {
			return err
		}
		select {
		case <-cut:
			_, err := to.Write(record.Bytes()[:record.Len()/2])
			return err
		default:
		}
		if _, err := record.WriteTo(to); err != nil {
			return err
		}
	}
}
