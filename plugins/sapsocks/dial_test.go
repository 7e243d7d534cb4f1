package sapsocks_test

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/nettest"
	"github.com/tunneld/tunneld/internal/socks5"
	"github.com/tunneld/tunneld/plugins/sapsocks"
	"github.com/tunneld/tunneld/plugins/sapsocks/sapsocksemu"
	"github.com/tunneld/tunneld/plugins/sdk"
)

// The whole way, with the binding of Cloud Foundry: token, proxy, Cloud
// Connector, backend, and back; the socket is handed over.
func TestThroughTheEmulator(t *testing.T) {
	emu := emulate(t, sapsocksemu.Options{TokenSize: 20 << 10})
	u := configure(t, bound(emu, nil))
	c, err := u.Dial(within(t), "echo.corp:7")
	if err != nil {
		t.Fatal(err)
	}
	if c.Path != "direct" || c.Remote != emu.Proxy() {
		t.Errorf("path %s to %s; want direct to %s", c.Path, c.Remote, emu.Proxy())
	}
	var stages []string
	for _, s := range c.Stages {
		stages = append(stages, s.Stage.String())
	}
	if got := strings.Join(stages, " "); got != "credential connect handshake request" {
		t.Errorf("stages %s", got)
	}
	exchange(t, c, "hello")
	said := emu.Conversations()
	if len(said) != 1 || len(said[0].Methods) != 1 || said[0].Methods[0] != 0x80 || len(said[0].Token) < 20<<10 {
		t.Errorf("the proxy heard %d conversations, the first offering %v with a token of %d bytes", len(said), said[0].Methods, len(said[0].Token))
	}
}

func TestBulkBothWays(t *testing.T) {
	emu := emulate(t, sapsocksemu.Options{})
	c, err := configure(t, bound(emu, nil)).Dial(within(t), "echo.corp:7")
	if err != nil {
		t.Fatal(err)
	}
	data := make([]byte, 16<<20)
	_, _ = rand.Read(data)
	exchange(t, c, string(data))
}

// Half-close works in either order, and a reset is one at the other end.
func TestHalfClose(t *testing.T) {
	t.Run("the backend ends first", func(t *testing.T) {
		heard := make(chan string, 1)
		backend := nettest.Serve(t, func(c *net.TCPConn) {
			_, _ = io.WriteString(c, "bye")
			_ = c.CloseWrite()
			b, _ := io.ReadAll(c)
			heard <- string(b)
		})
		emu := emulate(t, sapsocksemu.Options{Connectors: map[string]map[string]string{"": {"b.corp:1": backend}}})
		c, err := configure(t, bound(emu, nil)).Dial(within(t), "b.corp:1")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if got, err := io.ReadAll(c); err != nil || string(got) != "bye" {
			t.Fatalf("%q, %v", got, err)
		}
		if _, err := io.WriteString(c, "after the end"); err != nil {
			t.Fatal(err)
		}
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if got := <-heard; got != "after the end" {
			t.Errorf("the backend heard %q", got)
		}
	})
	t.Run("a reset is passed on", func(t *testing.T) {
		backend := nettest.Serve(t, func(c *net.TCPConn) {
			_, _ = io.ReadFull(c, make([]byte, 1))
			_ = c.SetLinger(0)
		})
		emu := emulate(t, sapsocksemu.Options{Connectors: map[string]map[string]string{"": {"b.corp:1": backend}}})
		c, err := configure(t, bound(emu, nil)).Dial(within(t), "b.corp:1")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := io.WriteString(c, "x"); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%v, want a reset", err)
		}
	})
}

// Two Cloud Connectors, told apart by location id, and one that is not there.
func TestLocations(t *testing.T) {
	emu := emulate(t, sapsocksemu.Options{Connectors: map[string]map[string]string{
		"":       {"echo.corp:7": nettest.Serve(t, nettest.Echo)},
		"berlin": {"only-berlin.corp:7": nettest.Serve(t, nettest.Echo), "10.0.0.1:7": nettest.Serve(t, nettest.Echo)},
	}})
	none := configure(t, bound(emu, nil))
	berlin := configure(t, bound(emu, values{"location_id": "berlin"}))
	paris := configure(t, bound(emu, values{"location_id": "paris"}))
	reach(t, none, "echo.corp:7")
	reach(t, berlin, "only-berlin.corp:7")
	reach(t, berlin, "10.0.0.1:7")
	fails(t, none, "only-berlin.corp:7", sapsocks.ReplyNoMapping)
	fails(t, berlin, "echo.corp:7", sapsocks.ReplyNoMapping)
	fails(t, berlin, "10.0.0.1:8", sapsocks.ReplyNoMapping)
	fails(t, paris, "echo.corp:7", sapsocks.ReplyNoConnector)
	if err := emu.SetConnector("berlin", nil); err != nil {
		t.Fatal(err)
	}
	fails(t, berlin, "only-berlin.corp:7", sapsocks.ReplyNoConnector)
}

func TestBackendDown(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	down := ln.Addr().String()
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}
	emu := emulate(t, sapsocksemu.Options{Connectors: map[string]map[string]string{"": {"db.corp:1": down}}})
	fails(t, configure(t, bound(emu, nil)), "db.corp:1", sapsocks.ReplyUnreachable)
}

func TestTrustedMode(t *testing.T) {
	emu := emulate(t, sapsocksemu.Options{Trusted: true})
	u := configure(t, values{"proxy": emu.Proxy(), "auth": "none"})
	reach(t, u, "echo.corp:7")
	fails(t, u, "x.corp:7", sapsocks.ReplyNoMapping)
	if m := emu.Conversations()[0].Methods; len(m) != 1 || m[0] != 0 {
		t.Errorf("offered %v, want exactly 00", m)
	}
	if n := emu.TokensIssued(); n != 0 {
		t.Errorf("%d tokens were fetched for nothing", n)
	}
	fails(t, configure(t, values{"proxy": emu.Proxy(), "token": "jwt"}), "echo.corp:7", sapsocks.ProxyNoJWT)
	strict := emulate(t, sapsocksemu.Options{})
	fails(t, configure(t, values{"proxy": strict.Proxy(), "auth": "none"}), "echo.corp:7", sapsocks.ProxyWantsAuth)
}

// The emulator's switches, through the whole plugin.
func TestFaults(t *testing.T) {
	short := values{"timeouts": values{"handshake": "2s"}}
	trusted, odd := byte(socks5.MethodNone), byte(socks5.MethodGSSAPI)
	tests := []struct {
		name   string
		faults sapsocksemu.Faults
		values values
		kind   sapsocks.Kind // empty: the dial goes well
	}{
		{"a byte at a time", sapsocksemu.Faults{Bytewise: true}, nil, ""},
		{"slow, but in time", sapsocksemu.Faults{Delay: 10 * time.Millisecond}, nil, ""},
		{"bound to a name", sapsocksemu.Faults{Bound: "gateway.corp:1"}, nil, ""},
		{"bound to IPv6", sapsocksemu.Faults{Bound: "[2001:db8::1]:1"}, nil, ""},
		{"too slow", sapsocksemu.Faults{Delay: patience}, short, sapsocks.HandshakeTimeout},
		{"silent at the greeting", sapsocksemu.Faults{Silent: sapsocksemu.StepGreeting}, short, sapsocks.HandshakeTimeout},
		{"silent at the authentication", sapsocksemu.Faults{Silent: sapsocksemu.StepAuth}, short, sapsocks.HandshakeTimeout},
		{"silent at the request", sapsocksemu.Faults{Silent: sapsocksemu.StepRequest}, short, sapsocks.RequestTimeout},
		{"closes at the greeting", sapsocksemu.Faults{CloseAt: sapsocksemu.StepGreeting}, nil, sapsocks.HandshakeBroken},
		{"closes at the authentication", sapsocksemu.Faults{CloseAt: sapsocksemu.StepAuth}, nil, sapsocks.HandshakeBroken},
		{"closes at the request", sapsocksemu.Faults{CloseAt: sapsocksemu.StepRequest}, nil, sapsocks.RequestBroken},
		{"resets at the request", sapsocksemu.Faults{CloseAt: sapsocksemu.StepRequest, Reset: true}, nil, sapsocks.RequestBroken},
		{"garbage at the greeting", sapsocksemu.Faults{Garbage: sapsocksemu.StepGreeting}, nil, sapsocks.ProxyNotSOCKS},
		{"garbage at the authentication", sapsocksemu.Faults{Garbage: sapsocksemu.StepAuth}, nil, sapsocks.HandshakeMalformed},
		{"garbage at the request", sapsocksemu.Faults{Garbage: sapsocksemu.StepRequest}, nil, sapsocks.RequestMalformed},
		{"chooses 00", sapsocksemu.Faults{Method: &trusted}, nil, sapsocks.ProxyTrusted},
		{"chooses what was not offered", sapsocksemu.Faults{Method: &odd}, nil, sapsocks.ProxyOddMethod},
		{"a reply of two bytes", sapsocksemu.Faults{Reply: 4, ShortReply: true}, nil, sapsocks.ReplyUnreachable},
		{"two bytes and silence", sapsocksemu.Faults{Reply: 3, HalfReply: true}, nil, sapsocks.ReplyNoConnector},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			emu := emulate(t, sapsocksemu.Options{Faults: tt.faults})
			u := configure(t, bound(emu, tt.values))
			if tt.kind == "" {
				reach(t, u, "echo.corp:7")
				return
			}
			fails(t, u, "echo.corp:7", tt.kind)
			emu.SetFaults(sapsocksemu.Faults{})
			reach(t, u, "echo.corp:7")
		})
	}
}

func TestReplyTogetherWithFirstData(t *testing.T) {
	backend := nettest.Serve(t, func(c *net.TCPConn) {
		_, _ = io.WriteString(c, "SSH-2.0-first\r\n")
		_ = c.CloseWrite()
		_, _ = io.Copy(io.Discard, c)
	})
	emu := emulate(t, sapsocksemu.Options{
		Connectors: map[string]map[string]string{"": {"ssh.corp:22": backend}},
		Faults:     sapsocksemu.Faults{WithData: true},
	})
	c, err := configure(t, bound(emu, nil)).Dial(within(t), "ssh.corp:22")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got, err := io.ReadAll(c); err != nil || string(got) != "SSH-2.0-first\r\n" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestProxyUnreachable(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := ln.Addr().String()
	_ = ln.Close()
	e := fails(t, configure(t, values{"proxy": closed, "token": "jwt"}), "echo.corp:7", sapsocks.ProxyUnreachable)
	if e.Reason != sdk.ReasonRefused || !e.Retryable || !strings.Contains(e.Message, closed) {
		t.Errorf("%s, %v: %s", e.Reason, e.Retryable, e.Message)
	}
}

// A silent proxy: what is told names the setting that ended the dial, and not the
// other.
func TestWhoseTimeIsOver(t *testing.T) {
	silent := nettest.Serve(t, func(c *net.TCPConn) { _, _ = io.Copy(io.Discard, c) })
	for name, tt := range map[string]struct {
		dial, handshake time.Duration
		want, not       string
	}{
		"the listener's": {50 * time.Millisecond, patience, "listener's timeouts.dial", "timeouts.handshake"},
		"the upstream's": {patience, 50 * time.Millisecond, "50ms of timeouts.handshake", "timeouts.dial"},
	} {
		t.Run(name, func(t *testing.T) {
			c := started(t, &sapsocks.Config{Proxy: silent, Token: sdk.NewSecret("jwt"), Auth: "jwt",
				Timeouts: sdk.Timeouts{Connect: patience, Handshake: tt.handshake}}, nil)
			ctx, cancel := context.WithTimeoutCause(t.Context(), tt.dial, sdk.ErrOvertime)
			defer cancel()
			_, err := c.Dial(ctx, &sdk.Request{Target: sdk.Target{Host: "echo.corp", Port: 7}})
			e := isKind(t, err, sapsocks.HandshakeTimeout)
			if !strings.Contains(e.Message, tt.want) || strings.Contains(e.Message+e.Hint, tt.not) {
				t.Errorf("%q, hint %q", e.Message, e.Hint)
			}
		})
	}
}

// A dial ends soon after its caller gives it up, wherever it is, and leaves no
// connection behind.
func TestCancel(t *testing.T) {
	tests := map[string]struct {
		turns []turn // after which the proxy is silent
		stage sdk.Stage
	}{
		"at the greeting":       {nil, sdk.StageHandshake},
		"at the authentication": {[]turn{{greeting, "\x05\x80"}}, sdk.StageHandshake},
		"at the request":        {[]turn{{greeting, "\x05\x80"}, {auth("jwt", ""), "\x01\x00"}}, sdk.StageRequest},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			reached, left := make(chan struct{}), make(chan error, 1)
			address := nettest.Serve(t, func(c *net.TCPConn) {
				for _, turn := range tt.turns {
					_, _ = io.ReadFull(c, make([]byte, len(turn.want)))
					_, _ = io.WriteString(c, turn.answer)
				}
				_, _ = io.ReadFull(c, make([]byte, 1))
				close(reached)
				_, err := io.Copy(io.Discard, c)
				left <- err
			})
			c := started(t, &sapsocks.Config{Proxy: address, Token: sdk.NewSecret("jwt"), Auth: "jwt"}, nil)
			ctx, cancel := context.WithCancel(within(t))
			defer cancel()
			go func() {
				<-reached
				cancel()
			}()
			_, err := c.Dial(ctx, &sdk.Request{Target: sdk.Target{Host: "echo.corp", Port: 7}})
			var e *sdk.DialError
			if !errors.As(err, &e) || e.Reason != sdk.ReasonCanceled || e.Stage != tt.stage || e.Retryable {
				t.Errorf("%v; want canceled at %s", err, tt.stage)
			}
			if err := <-left; errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("the connection to the proxy was left open")
			}
		})
	}
}

// The same for a dial that waits for a token. Others that wait are not disturbed
// by it, nor is the fetch.
func TestCancelWhileWaitingForAToken(t *testing.T) {
	asked, answer := make(chan struct{}), make(chan struct{})
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(asked)
		<-answer
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"access_token":"jwt","expires_in":3600}`)
	}))
	defer service.Close()
	address, _ := script(t, false, turn{greeting, "\x05\x80"}, turn{auth("jwt", ""), "\x01\x00"}, turn{askEcho, ok})
	c := started(t, &sapsocks.Config{Proxy: address, Auth: "jwt", OAuth: &sapsocks.OAuth{
		TokenURL: service.URL, ClientID: "id", ClientSecret: sdk.NewSecret("secret")}}, nil)
	<-asked
	ctx, cancel := context.WithCancel(within(t))
	cancel()
	req := &sdk.Request{Target: sdk.Target{Host: "echo.corp", Port: 7}}
	_, err := c.Dial(ctx, req)
	var e *sdk.DialError
	if !errors.As(err, &e) || e.Reason != sdk.ReasonCanceled || e.Stage != sdk.StageCredential {
		t.Errorf("%v; want canceled at credential", err)
	}
	late, cancel := context.WithDeadlineCause(within(t), time.Now(), sdk.ErrOvertime)
	defer cancel()
	_, err = c.Dial(late, req)
	if !errors.As(err, &e) || e.Reason != sdk.ReasonTimeout || !strings.Contains(e.Hint, "raise timeouts.dial") {
		t.Errorf("%v; want a timeout with a hint", err)
	}
	close(answer)
	// The tunnel's socket cannot be had without the SDK, so the dial itself is
	// all there is to see.
	if _, err := c.Dial(within(t), req); err != nil {
		t.Error(err)
	}
}

// Many dials at once, each with bytes of its own. Notes: "One token serves many
// dials: it is cached, fetched once however many dials wait for it".
func TestConcurrentDials(t *testing.T) {
	emu := emulate(t, sapsocksemu.Options{Faults: sapsocksemu.Faults{Token: sapsocksemu.TokenFaults{Delay: 50 * time.Millisecond}}})
	u := configure(t, bound(emu, nil))
	ctx := within(t)
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			c, err := u.Dial(ctx, "echo.corp:7")
			if err != nil {
				t.Errorf("dial %d: %v", i, err)
				return
			}
			exchange(t, c, fmt.Sprintf("%x", sha256.Sum256([]byte{byte(i)})))
		})
	}
	wg.Wait()
	if n := emu.TokensIssued(); n != 1 {
		t.Errorf("%d tokens for all dials, want 1", n)
	}
}
