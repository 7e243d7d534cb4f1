//go:build interop

package interop

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tunneld/tunneld/plugins/sdk"
	"github.com/tunneld/tunneld/plugins/sdk/sdktest"
	"github.com/tunneld/tunneld/plugins/websocks"
	"github.com/tunneld/tunneld/plugins/websocks/websocksemu"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds what a test waits for.
const patience = 20 * time.Second

type values = map[string]any

func emulate(t *testing.T, o websocksemu.Options) *websocksemu.Server {
	t.Helper()
	s, err := websocksemu.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

func (g *gateway) upstream(t *testing.T, secure bool, more values) *sdktest.Upstream {
	t.Helper()
	v := values{"url": "ws://" + g.plain + "/tunnel"}
	if secure {
		v = values{"url": "wss://" + g.secure + "/tunnel", "tls": values{"ca_file": g.caFile}}
	}
	maps.Copy(v, more)
	return sdktest.Start(t, websocks.Plugin()).Configure(t, "paas", v)
}

func dial(t *testing.T, u *sdktest.Upstream, target string) (*sdktest.Conn, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := u.Dial(ctx, target)
	if err != nil {
		return nil, err
	}
	_ = c.SetDeadline(time.Now().Add(patience))
	t.Cleanup(func() { _ = c.Close() })
	return c, nil
}

func mustDial(t *testing.T, u *sdktest.Upstream, target string) *sdktest.Conn {
	t.Helper()
	c, err := dial(t, u, target)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// legs runs a test through each gateway, with TLS on neither, one or both of
// its sides.
func legs(t *testing.T, o websocksemu.Options, test func(t *testing.T, software string, g *gateway, s *websocksemu.Server, secure bool)) {
	for _, sw := range gateways {
		for _, front := range []bool{false, true} {
			for _, back := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/tls to it %t, behind it %t", sw.name, front, back), func(t *testing.T) {
					o := o
					o.TLS = back
					s := emulate(t, o)
					test(t, sw.name, startGateway(t, sw, s), s, front)
				})
			}
		}
	}
}

// TestGatewayCarriesBytes sends random bytes through several tunnels at once.
func TestGatewayCarriesBytes(t *testing.T) {
	legs(t, websocksemu.Options{Users: map[string]string{"alice": "secret"}}, func(t *testing.T, _ string, g *gateway, s *websocksemu.Server, secure bool) {
		u := g.upstream(t, secure, values{"username": "alice", "password": "secret"})
		var wait sync.WaitGroup
		for range 8 {
			c := mustDial(t, u, websocksemu.EchoTarget)
			data := make([]byte, 1<<20)
			_, _ = rand.Read(data)
			wait.Go(func() {
				if _, err := c.Write(data); err != nil {
					t.Errorf("send: %v", err)
				}
			})
			wait.Go(func() {
				got := make([]byte, len(data))
				if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, data) {
					t.Errorf("received other bytes than were sent: %v", err)
				}
			})
		}
		wait.Wait()
		for _, e := range s.Exchanges() {
			if !strings.HasPrefix(e.Request, "GET /tunnel HTTP/1.1\r\n") {
				t.Errorf("the gateway asked for\n%s", e.Request)
			}
		}
	})
}

// TestGatewayHalfClose is the notes' last line: "Half-close passes through as
// TCP half-close, also behind HAProxy. nginx as the gateway cuts the connection
// on the client's FIN: nothing of the answer arrives after it." Where the target
// ends first, both cut.
func TestGatewayHalfClose(t *testing.T) {
	for _, sw := range gateways {
		for _, secure := range []bool{false, true} {
			name := fmt.Sprintf("%s, tls %t, ", sw.name, secure)
			t.Run(name+"the client first", func(t *testing.T) {
				c, target := established(t, sw, secure)
				if err := c.CloseWrite(); err != nil {
					t.Fatal(err)
				}
				if _, err := target.Read(make([]byte, 1)); err != io.EOF {
					t.Errorf("the target sees %v, want the client's end", err)
				}
				_, _ = io.WriteString(target, "answer")
				_ = target.CloseWrite()
				after(t, c, "answer", sw.name == "nginx")
			})
			t.Run(name+"the target first", func(t *testing.T) {
				c, target := established(t, sw, secure)
				_ = target.CloseWrite()
				if _, err := c.Read(make([]byte, 1)); err != io.EOF {
					t.Errorf("the client sees %v, want the target's end", err)
				}
				_, _ = io.WriteString(c, "more")
				_ = c.CloseWrite()
				after(t, target, "more", true)
			})
		}
	}
}

// after checks what arrives from a side that speaks on after the other has
// ended its direction.
func after(t *testing.T, r io.Reader, want string, cut bool) {
	t.Helper()
	got, err := io.ReadAll(r)
	switch {
	case !cut && (err != nil || string(got) != want):
		t.Errorf("received %q (%v), want %q and its end", got, err, want)
	case cut && len(got) > 0:
		t.Errorf("received %q (%v): the gateway no longer cuts, as the plugin's README says it does", got, err)
	}
}

// TestGatewayReencrypts has a gateway speak TLS to a server that behaves as the
// original: the gateway turns the client's end into a close_notify, and the server
// takes that for an error.
func TestGatewayReencrypts(t *testing.T) {
	for _, sw := range gateways {
		for _, secure := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, tls %t", sw.name, secure), func(t *testing.T) {
				c, target := through(t, sw, secure, websocksemu.Options{TLS: true})
				if err := c.CloseWrite(); err != nil {
					t.Fatal(err)
				}
				if _, err := target.Read(make([]byte, 1)); err == io.EOF {
					t.Error("the target sees the client's end: the README says that it cannot")
				}
				_, _ = io.WriteString(target, "answer")
				after(t, c, "answer", true)
			})
		}
	}
}

// TestGatewayPassesTLSThrough is the way out: the TLS is the plugin's own up to the
// server.
func TestGatewayPassesTLSThrough(t *testing.T) {
	o, accept := withTarget(t, websocksemu.Options{TLS: true})
	s := emulate(t, o)
	g := startGateway(t, software{"haproxy", startHAProxyTCP}, s)
	g.secure, g.caFile = g.plain, s.CAFile()
	c := mustDial(t, g.upstream(t, true, nil), "db.corp:5432")
	if _, err := io.WriteString(c, "question"); err != nil {
		t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	target := accept()
	if got, err := io.ReadAll(target); err != nil || string(got) != "question" {
		t.Errorf("the target received %q (%v), want the question and its end", got, err)
	}
	if _, err := io.WriteString(target, "answer"); err != nil {
		t.Fatal(err)
	}
	_ = target.CloseWrite()
	after(t, c, "answer", false)
}

// established is a tunnel through a gateway that has carried a question to its
// target.
func established(t *testing.T, sw software, secure bool) (*sdktest.Conn, *net.TCPConn) {
	t.Helper()
	return through(t, sw, secure, websocksemu.Options{})
}

// through is established for a server of these options, but for its targets.
func through(t *testing.T, sw software, secure bool, o websocksemu.Options) (*sdktest.Conn, *net.TCPConn) {
	t.Helper()
	o, accept := withTarget(t, o)
	c := mustDial(t, startGateway(t, sw, emulate(t, o)).upstream(t, secure, nil), "db.corp:5432")
	if _, err := io.WriteString(c, "question"); err != nil {
		t.Fatal(err)
	}
	target := accept()
	if _, err := io.ReadFull(target, make([]byte, len("question"))); err != nil {
		t.Fatal(err)
	}
	return c, target
}

// withTarget gives a server the target "db.corp:5432", and returns what accepts
// a connection to it.
func withTarget(t *testing.T, o websocksemu.Options) (websocksemu.Options, func() *net.TCPConn) {
	t.Helper()
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	_ = l.SetDeadline(time.Now().Add(patience))
	o.Targets = map[string]string{"db.corp:5432": l.Addr().String()}
	return o, func() *net.TCPConn {
		t.Helper()
		target, err := l.AcceptTCP()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = target.Close() })
		_ = target.SetDeadline(time.Now().Add(patience))
		return target
	}
}

// TestGatewayTargetEnds has the far end end first, which every gateway passes.
func TestGatewayTargetEnds(t *testing.T) {
	closed, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	_ = closed.Close()
	o := websocksemu.Options{Targets: map[string]string{"db.corp:1": closed.Addr().String()}}
	legs(t, o, func(t *testing.T, _ string, g *gateway, _ *websocksemu.Server, secure bool) {
		c := mustDial(t, g.upstream(t, secure, nil), "db.corp:1")
		if _, err := io.WriteString(c, "x"); err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(c); err != nil || len(b) > 0 {
			t.Errorf("received %q (%v), want the end", b, err)
		}
	})
}

// TestGatewayRefusals has a wrong password, a wrong clock, a wrong path and a
// server that is down.
func TestGatewayRefusals(t *testing.T) {
	legs(t, websocksemu.Options{Users: map[string]string{"alice": "secret"}}, func(t *testing.T, _ string, g *gateway, s *websocksemu.Server, secure bool) {
		refused := func(u *sdktest.Upstream) *sdk.DialError {
			t.Helper()
			_, err := dial(t, u, websocksemu.EchoTarget)
			var e *sdk.DialError
			if !errors.As(err, &e) {
				t.Fatalf("dial: %v, want a DialError", err)
			}
			return e
		}
		u := g.upstream(t, secure, values{"username": "alice", "password": "wrong"})
		if e := refused(u); e.Reason != sdk.ReasonUnauthenticated || !strings.Contains(e.Message, "auth failed") || !strings.Contains(e.Hint, "clock") {
			t.Errorf("a wrong password: %+v", e)
		}
		right := g.upstream(t, secure, values{"username": "alice", "password": "secret"})
		s.SetFaults(websocksemu.Faults{ClockOffset: 10 * time.Minute})
		if e := refused(right); e.Reason != sdk.ReasonUnauthenticated || !strings.Contains(e.Hint, "clock") {
			t.Errorf("another clock: %+v", e)
		}
		s.SetFaults(websocksemu.Faults{Status: 404})
		if e := refused(right); e.Reason != sdk.ReasonNotFound {
			t.Errorf("a path that is not there: %+v", e)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if e := refused(right); e.Reason != sdk.ReasonUnavailable || !e.Retryable {
			t.Errorf("a server that is down: %+v", e)
		}
	})
}
