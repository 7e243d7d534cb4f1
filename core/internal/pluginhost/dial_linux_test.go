package pluginhost

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tunneld/tunneld/core/internal/tunnel"
	"github.com/tunneld/tunneld/internal/fdtest"
	"github.com/tunneld/tunneld/plugins/sdk/sdktest/fixture"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// TestHandoff has dials answered in every way that the protocol allows, and in
// every way that it does not.
func TestHandoff(t *testing.T) {
	target := echoServer(t)
	h := newHost(t, nil)
	h.waits.handoff = 300 * time.Millisecond
	p := h.start(t, rawSpec(""))
	configure(t, p, 1, `{}`)
	before := fdtest.Open(t)
	const (
		protocol    = pluginv1.Reason_REASON_PROTOCOL
		unavailable = pluginv1.Reason_REASON_UNAVAILABLE
	)
	for _, tt := range []struct {
		host   string
		reason pluginv1.Reason // 0: success
		want   string
	}{
		{host: "descriptor first"},
		{host: "answer first"},
		{host: "twice"},
		{host: "unclaimed relay"},
		{host: "bad records"},
		{host: "unix"},
		{host: "relay"},
		{"no descriptor", protocol, "it answered and passed no descriptor within 300ms"},
		{"no answer", protocol, "it passed a descriptor and did not answer within 300ms"},
		{"datagram", protocol, "is not a stream socket"},
		{"netlink", protocol, "is not a stream socket"},
		{"pipe", protocol, "is not a socket"},
		{"listening", protocol, "is a listening socket"},
		{"unconnected", unavailable, "had ended already"},
		{"relay over tcp", protocol, "the descriptor of a relay is a TCP socket"},
		{"other path", protocol, "name different data paths"},
		{"other token", protocol, "it answered with token"},
		{"unknown path", protocol, "a data path that was not offered"},
		{"stream", protocol, "a data path that was not offered"},
		{"nothing", protocol, "a data path that was not offered"},
		{"too much ahead", protocol, "it prefetched 65537 bytes"},
		{"too large", unavailable, "larger than max"},
		{"internal", unavailable, "out of luck (Internal)"},
	} {
		t.Run(tt.host, func(t *testing.T) {
			c, err := dialTo(t, p, 1, tunnel.Target{Host: tt.host, Port: target.Port})
			if tt.reason == 0 {
				if err != nil {
					t.Fatal(err)
				}
				defer c.Stream.Close()
				checkConn(t, c)
				if c.Relay != nil {
					c.Relay.Abort("enough")
					c.Relay.Ended()
				} else if tt.host != "unix" {
					exchange(t, c, "echo")
				}
				return
			}
			e := dialError(t, err)
			if e.Reason != tt.reason || !e.Retryable || !strings.Contains(e.Message, tt.want) || !strings.Contains(e.Message, `plugin "raw"`) || e.Hint == "" {
				t.Errorf("error %+v", e)
			}
		})
	}
	if s := p.State(); s.Open != 0 || s.Restarts != 0 {
		t.Errorf("state %+v", s)
	}
	settled(t, before)
}

// settled waits until no more descriptors are open than before: the echo
// server's end a moment after those of the dials.
func settled(t *testing.T, before map[string]string) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	late := time.After(patience)
	for len(fdtest.Open(t)) > len(before) {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("descriptors before: %v\nafter: %v", before, fdtest.Open(t))
		}
	}
}

// checkConn wants a bare connection whose descriptor is non-blocking and not
// inherited.
func checkConn(t *testing.T, c *tunnel.Conn) {
	t.Helper()
	var raw syscall.RawConn
	var err error
	switch s := c.Stream.(type) {
	case *net.TCPConn:
		raw, err = s.SyscallConn()
	case *net.UnixConn:
		raw, err = s.SyscallConn()
	default:
		t.Fatalf("stream %T", c.Stream)
	}
	if err != nil {
		t.Fatal(err)
	}
	_ = raw.Control(func(fd uintptr) {
		if fl, err := unix.FcntlInt(fd, unix.F_GETFL, 0); err != nil || fl&unix.O_NONBLOCK == 0 {
			t.Errorf("flags %x, %v: blocking", fl, err)
		}
		if fl, err := unix.FcntlInt(fd, unix.F_GETFD, 0); err != nil || fl&unix.FD_CLOEXEC == 0 {
			t.Errorf("flags %x, %v: inherited", fl, err)
		}
	})
}

// TestFarEndError passes a plugin's error on, cleaned and bounded.
func TestFarEndError(t *testing.T) {
	h := newHost(t, nil)
	p := h.start(t, rawSpec(""))
	configure(t, p, 1, `{}`)
	_, err := dialTo(t, p, 1, tunnel.Target{Host: "error"})
	e := dialError(t, err)
	if e.Upstream != "raw.u" || e.Stage != pluginv1.Stage_STAGE_REQUEST || e.Reason != pluginv1.Reason_REASON_NOT_FOUND ||
		e.Retryable || e.Message != "no such host" || len(e.Hint) != maxText || e.RetryAfter != time.Minute ||
		len(e.Stages) != 1 || e.Stages[0] != (tunnel.StageTime{Stage: pluginv1.Stage_STAGE_CONNECT, Duration: time.Second}) {
		t.Errorf("error %+v", e)
	}
	_, err = dialTo(t, p, 1, tunnel.Target{Host: "strange error"})
	e = dialError(t, err)
	if e.Stage != 0 || e.Reason != pluginv1.Reason_REASON_UNAVAILABLE || e.Message == "" || e.RetryAfter != 0 || len(e.Stages) != maxStages {
		t.Errorf("error %+v", e)
	}
}

// TestDialGivenUp cancels dials: they return soon, and leave nothing behind.
func TestDialGivenUp(t *testing.T) {
	h := newHost(t, nil)
	p := h.start(t, rawSpec(""))
	configure(t, p, 1, `{}`)
	for _, tt := range []struct {
		name   string
		ctx    func() (context.Context, context.CancelFunc)
		reason pluginv1.Reason
		err    error
	}{
		{"deadline", func() (context.Context, context.CancelFunc) {
			return context.WithTimeout(context.Background(), 50*time.Millisecond)
		}, pluginv1.Reason_REASON_TIMEOUT, context.DeadlineExceeded},
		{"canceled", func() (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(context.Background())
			time.AfterFunc(50*time.Millisecond, cancel)
			return ctx, cancel
		}, pluginv1.Reason_REASON_CANCELED, context.Canceled},
	} {
		for _, host := range []string{"hang", "no descriptor", "no answer"} {
			t.Run(tt.name+" "+host, func(t *testing.T) {
				ctx, cancel := tt.ctx()
				defer cancel()
				begun := time.Now()
				target := echoServer(t)
				_, err := p.Dialer(1, "u").Dial(ctx, tunnel.Dial{Target: tunnel.Target{Host: host, Port: target.Port}})
				if e := dialError(t, err); e.Reason != tt.reason || !errors.Is(err, tt.err) {
					t.Errorf("error %+v", e)
				}
				if d := time.Since(begun); d > 4*time.Second {
					t.Errorf("took %s", d)
				}
			})
		}
	}
	if s := p.State(); s.Open != 0 {
		t.Errorf("state %+v", s)
	}
}

// TestDialsBounded has more dials than may be under way, of one upstream and then
// of the plugin.
func TestDialsBounded(t *testing.T) {
	h := newHost(t, func(o *Options) { o.MaxDials = 4 })
	p := h.start(t, rawSpec(""))
	configure(t, p, 1, `{}`)
	ctx, cancel := context.WithCancel(t.Context())
	var dials sync.WaitGroup
	crowd := func(on tunnel.Dialer) {
		before := len(p.dials)
		for range 2 {
			dials.Go(func() { _, _ = on.Dial(ctx, tunnel.Dial{Target: tunnel.Target{Host: "hang"}}) })
		}
		for len(p.dials) < before+2 {
			time.Sleep(time.Millisecond)
		}
	}
	refused := func(by tunnel.Dialer, because string) {
		t.Helper()
		third, stop := context.WithTimeout(ctx, 20*time.Millisecond)
		defer stop()
		_, err := by.Dial(third, tunnel.Dial{Target: tunnel.Target{Host: "hang"}})
		if e := dialError(t, err); e.Reason != pluginv1.Reason_REASON_TIMEOUT || !strings.Contains(e.Message, because) {
			t.Errorf("error %+v", e)
		}
	}
	one, other := p.Dialer(1, "u"), p.Dialer(1, "u")
	crowd(one)
	refused(one, "2 dials of upstream raw.u are in progress")
	crowd(other) // in spite of it
	refused(p.Dialer(1, "u"), `4 dials of plugin "raw" are in progress`)
	cancel()
	dials.Wait()
}

// TestNoDescriptorsLeft has the daemon out of descriptors when one is handed
// over: that dial fails, and the next works.
func TestNoDescriptorsLeft(t *testing.T) {
	h := newHost(t, nil)
	p := h.start(t, rawSpec(""))
	configure(t, p, 1, `{}`)
	err := dialWithoutDescriptors(t, p)
	if e := dialError(t, err); e.Reason != pluginv1.Reason_REASON_UNAVAILABLE || !e.Retryable || !strings.Contains(e.Message, "MSG_CTRUNC") || !strings.Contains(e.Hint, "LimitNOFILE") {
		t.Errorf("error %+v", e)
	}
	target := echoServer(t)
	c, err := dialTo(t, p, 1, tunnel.Target{Host: "descriptor first", Port: target.Port})
	if err != nil {
		t.Fatal(err)
	}
	exchange(t, c, "again")
}

// dialWithoutDescriptors has a raw plugin hand over what this process has no
// descriptor for.
func dialWithoutDescriptors(t *testing.T, p *Plugin) error {
	t.Helper()
	// The relay's far end is made in the plugin, so that nothing else in this
	// process wants a descriptor meanwhile.
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	lowest, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	_ = unix.Close(lowest)
	low := old
	low.Cur = uint64(lowest)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &low); err != nil {
		t.Fatal(err)
	}
	_, err = dialTo(t, p, 1, tunnel.Target{Host: "relay"})
	if e := unix.Setrlimit(unix.RLIMIT_NOFILE, &old); e != nil {
		t.Fatal(e)
	}
	return err
}

// TestSocketOptionsKept has the options that the plugin set survive the
// handover: making a connection of a descriptor sets some of them anew.
func TestSocketOptionsKept(t *testing.T) {
	h := newHost(t, nil)
	p := h.start(t, Spec{Name: fixture.DirectName, Bundled: true})
	configure(t, p, 1, `{}`)
	target := echoServer(t)
	for name, o := range map[string]tunnel.SocketOptions{
		"off": {},
		"on":  {Nodelay: true, KeepaliveIdle: 77 * time.Second, KeepaliveInterval: 7 * time.Second, KeepaliveCount: 3, UserTimeout: 9 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := dialStream(t.Context(), p.Dialer(1, "u"), tunnel.Dial{Target: target, Socket: o})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Stream.Close()
			raw, err := c.Stream.(*net.TCPConn).SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			want := map[[2]int]int{
				{unix.SOL_SOCKET, unix.SO_KEEPALIVE}:      boolInt(o.KeepaliveIdle > 0),
				{unix.IPPROTO_TCP, unix.TCP_NODELAY}:      boolInt(o.Nodelay),
				{unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT}: int(o.UserTimeout.Milliseconds()),
			}
			if o.KeepaliveIdle > 0 {
				want[[2]int{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE}] = 77
				want[[2]int{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL}] = 7
				want[[2]int{unix.IPPROTO_TCP, unix.TCP_KEEPCNT}] = 3
			}
			_ = raw.Control(func(fd uintptr) {
				for o, v := range want {
					if got, err := unix.GetsockoptInt(int(fd), o[0], o[1]); err != nil || got != v {
						t.Errorf("option %v is %d, %v, want %d", o, got, err, v)
					}
				}
			})
		})
	}
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// TestReadAhead brings the bytes along that a handshake read too far.
func TestReadAhead(t *testing.T) {
	target := server(t, func(c *net.TCPConn) { _, _ = io.WriteString(c, "0123456789") })
	for _, name := range []string{fixture.DirectName, fixture.RelayName} {
		h := newHost(t, nil)
		p := h.start(t, Spec{Name: name, Bundled: true})
		configure(t, p, 1, `{"prefetch":4}`)
		c, err := dialTo(t, p, 1, target)
		if err != nil {
			t.Fatal(err)
		}
		rest, err := io.ReadAll(c.Stream)
		if got := string(c.ReadAhead) + string(rest); err != nil || got != "0123456789" {
			t.Errorf("%s: got %q, %v", name, got, err)
		}
		_ = c.Stream.Close()
		if c.Relay != nil {
			c.Relay.Ended()
		}
	}
}
