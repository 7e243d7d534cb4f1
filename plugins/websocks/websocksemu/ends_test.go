package websocksemu

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/tlsconf"
)

// The tests of this file are the protocol notes about how connections end.

// gather holds back what is written while it is on, so that it leaves at once.
type gather struct {
	net.Conn
	on   bool
	held bytes.Buffer
}

func (g *gather) Write(b []byte) (int, error) {
	if g.on {
		return g.held.Write(b)
	}
	return g.Conn.Write(b)
}

// secureClient is a client with a tunnel over TLS to a target of its own. Its
// reads tell an end by FIN, io.ErrUnexpectedEOF, from one by close_notify.
type secureClient struct {
	client
	server *Server
	tls    *tls.Conn
	gather *gather
	target *net.TCPListener
}

func secured(t *testing.T, o Options) secureClient {
	t.Helper()
	l := listenTest(t)
	o.TLS, o.Targets = true, map[string]string{EchoTarget: l.Addr().String()}
	s := start(t, o)
	g := &gather{Conn: dial(t, s).Conn}
	conn := tls.Client(tlsconf.Strict(g), &tls.Config{InsecureSkipVerify: true})
	c := client{conn, t}
	c.send(upgradeRequest())
	c.head()
	c.send(frame + greeting + connectEcho)
	c.expect(frame + "\x05\x00" + connected)
	return secureClient{client: c, server: s, tls: conn, gather: g, target: l}
}

func (c secureClient) accept() client {
	c.t.Helper()
	conn, err := c.target.AcceptTCP()
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	return client{conn, c.t}
}

// fin ends the client's direction as the original's agent does.
func (c secureClient) fin() {
	c.t.Helper()
	if err := c.gather.Conn.(*net.TCPConn).CloseWrite(); err != nil {
		c.t.Fatal(err)
	}
}

// expectFIN wants the server's direction to end by TCP alone.
func (c secureClient) expectFIN() {
	c.t.Helper()
	if rest, err := io.ReadAll(c); len(rest) > 0 || !errors.Is(err, io.ErrUnexpectedEOF) {
		c.t.Fatalf("received %q (%v), want an end without close_notify", rest, err)
	}
}

// "Its own agent ends a direction with a TCP FIN and no alert, and that is what
// the server understands, in both directions at once. It sends no close_notify
// itself."
func TestNotesTLSHalfCloseIsAFIN(t *testing.T) {
	for name, f := range map[string]Faults{"TLS 1.2": {}, "TLS 1.3": {TLS13: true}} {
		t.Run(name+", the client first", func(t *testing.T) {
			c := secured(t, Options{Faults: f})
			c.send("question")
			up := c.accept()
			up.expect("question")
			c.fin()
			up.expectEOF()
			up.send("answer")
			_ = up.Close()
			c.expect("answer")
			c.expectFIN()
		})
		t.Run(name+", the target first", func(t *testing.T) {
			c := secured(t, Options{Faults: f})
			c.send("x")
			up := c.accept()
			_ = up.Conn.(*net.TCPConn).CloseWrite()
			c.expectFIN()
			c.send("more")
			c.fin()
			up.expect("xmore")
			up.expectEOF()
		})
	}
}

// "Its server takes a TLS close_notify for an error of the engine: everything
// that it has not yet passed on is thrown away (3,000 bytes and a close_notify
// behind them: 0 arrived), and the connection to the target stays for its idle
// time."
func TestNotesCloseNotifyIsAnError(t *testing.T) {
	broken := func(t *testing.T, idle time.Duration) (secureClient, client) {
		t.Helper()
		c := secured(t, Options{})
		c.server.idle.Store(int64(idle))
		c.gather.on = true
		c.send(strings.Repeat("x", 3000))
		if err := c.tls.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(10 * time.Second)) // crypto/tls left one
		if _, err := c.gather.held.WriteTo(c.gather.Conn); err != nil {
			t.Fatal(err)
		}
		return c, c.accept()
	}
	nothing := func(t *testing.T, up client) {
		t.Helper()
		if got, err := io.ReadAll(up); len(got) > 0 || !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the target received %d bytes (%v), want none and no clean end", len(got), err)
		}
	}
	t.Run("until the client is gone", func(t *testing.T) {
		c, up := broken(t, time.Hour)
		up.send("an answer, which is swallowed")
		up.expectSilence()
		c.expectSilence()
		_ = c.gather.Close()
		nothing(t, up)
	})
	t.Run("until the idle time is over", func(t *testing.T) {
		_, up := broken(t, 100*time.Millisecond)
		nothing(t, up)
	})
	t.Run("before the first byte", func(t *testing.T) {
		c := secured(t, Options{})
		if err := c.tls.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		c.expectSilence()
		c.fin()
		c.expectFIN()
	})
}

// TestCloseNotify is the switch: RFC 8446, section 6.1.
func TestCloseNotify(t *testing.T) {
	c := secured(t, Options{Faults: Faults{CloseNotify: true}})
	c.send("question")
	if err := c.tls.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	up := c.accept()
	up.expect("question")
	up.expectEOF()
	up.send("answer")
	_ = up.Close()
	c.expect("answer")
	c.expectEOF()
}

// "The server keeps such a connection for as long as PONGs come; without any it
// ends after its idle time."
func TestNotesPongKeepsAConnection(t *testing.T) {
	const idle = time.Second
	for {
		s := start(t, Options{})
		kept, silent := upgraded(t, s), upgraded(t, s)
		s.idle.Store(int64(idle))
		silent.send("\x8a\x00")
		inTime := pong(t, kept, idle)
		_, err := io.WriteString(kept, frame)
		if err == nil {
			_, err = io.ReadFull(kept, make([]byte, len(frame)))
		}
		switch {
		case err == nil:
			silent.expectEOF()
			return
		case inTime:
			t.Fatalf("the connection ended, though PONGs came: %v", err)
		}
		t.Log("this machine was too busy to send PONGs in time: once more")
	}
}

// pong sends PONGs for longer than the idle time, and says whether the gaps
// between them were short enough.
func pong(t *testing.T, c client, idle time.Duration) bool {
	every := time.NewTicker(idle / 20)
	defer every.Stop()
	inTime := true
	for begin, last := time.Now(), time.Now(); time.Since(begin) < 2*idle; last = time.Now() {
		<-every.C
		_, err := io.WriteString(c, "\x8a\x00")
		inTime = inTime && time.Since(last) < idle/2
		if err != nil {
			t.Logf("send PONG: %v", err)
			break
		}
	}
	return inTime
}
