package soht

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http/httptrace"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tunneld/tunneld/plugins/sdk"
)

// abandonTime is how long an open whose dial was cancelled may go on, so that
// its connection at the server can be closed.
const abandonTime = 5 * time.Second

// probeTime bounds the question whether connections are kept.
const probeTime = 5 * time.Second

// opened is a connection that the server has made.
type opened struct {
	id            string
	local, remote net.Addr // of the HTTP connection that it was asked for on
}

// openTrace follows the HTTP side of an open.
type openTrace struct {
	req  *sdk.Request
	sent atomic.Bool // the server may have begun
	over atomic.Bool // the dial has returned

	mu            sync.Mutex
	stage         sdk.Stage // entered last
	timer         *time.Timer
	local, remote net.Addr
}

// hooks returns the trace. Once a connection is there, expired is called after
// limit, unless stop comes first.
func (t *openTrace) hooks(limit time.Duration, expired func()) *httptrace.ClientTrace {
	enter := func(s sdk.Stage) {
		t.mu.Lock()
		t.stage = s
		t.mu.Unlock()
		if !t.over.Load() {
			t.req.Enter(s)
		}
	}
	return &httptrace.ClientTrace{
		DNSStart:          func(httptrace.DNSStartInfo) { enter(sdk.StageResolve) },
		DNSDone:           func(httptrace.DNSDoneInfo) { enter(sdk.StageConnect) },
		TLSHandshakeStart: func() { enter(sdk.StageTLS) },
		GotConn: func(info httptrace.GotConnInfo) {
			enter(sdk.StageRequest)
			t.mu.Lock()
			defer t.mu.Unlock()
			t.local, t.remote = info.Conn.LocalAddr(), info.Conn.RemoteAddr()
			if t.timer == nil {
				t.timer = time.AfterFunc(limit, expired)
			}
		},
		WroteHeaders: func() { t.sent.Store(true) },
	}
}

// stop ends the time limit and returns the connection's two ends, and the stage
// that was entered last.
func (t *openTrace) stop() (local, remote net.Addr, stage sdk.Stage) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.timer != nil {
		t.timer.Stop()
	}
	return t.local, t.remote, t.stage
}

// open asks the server for the target. Cut short by ctx it returns at once, and
// sees to it in the background that the server keeps nothing.
func (c *Config) open(ctx context.Context, cl *client, req *sdk.Request) (opened, error) {
	octx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	trace := &openTrace{req: req, stage: sdk.StageConnect}
	defer trace.over.Store(true)
	hooks := trace.hooks(c.Timeouts.Handshake, func() {
		cancel(&Error{
			Action: "open", Reason: sdk.ReasonTimeout, Err: ErrExchange,
			Message: "no answer within " + c.Timeouts.Handshake.String(),
			Hint:    "the server answers once it has reached " + req.Target.String() + ": check the way between them, or raise timeouts.handshake",
		})
	})

	type result struct {
		opened
		err error
	}
	answer := make(chan result, 1)
	if !c.goInBackground(func() {
		id, err := cl.openProbed(httptrace.WithClientTrace(octx, hooks), c.login(), req.Target)
		local, remote, stage := trace.stop()
		answer <- result{opened{id, local, remote}, dialFailure(cl.url.Host, stage, err)}
	}) {
		cancel(nil)
		return opened{}, &sdk.DialError{Reason: sdk.ReasonUnavailable, Retryable: true, Message: "the upstream is no longer in use"}
	}
	select {
	case r := <-answer:
		cancel(nil)
		return r.opened, r.err
	case <-ctx.Done():
	}
	if !trace.sent.Load() {
		cancel(ctx.Err())
	}
	abandon := time.AfterFunc(abandonTime, func() { cancel(ctx.Err()) })
	c.goInBackground(func() {
		r := <-answer
		abandon.Stop()
		cancel(nil)
		if r.err == nil {
			cctx, done := context.WithTimeout(context.Background(), closeTimeout)
			defer done()
			_ = cl.release(cctx, r.id)
		}
	})
	return opened{}, openFailure(cl.url.Host, context.Cause(ctx))
}

// openProbed opens, and finds out before whether connections are kept where
// that is doubtful: they are, if the open goes through at once on one that has
// carried a request before.
func (c *client) openProbed(ctx context.Context, login credentials, target sdk.Target) (string, error) {
	if !c.doubtful.Load() {
		return c.open(ctx, login, target)
	}
	pctx, cancel := context.WithTimeout(ctx, probeTime)
	c.probe(pctx)
	cancel()
	var kept, other atomic.Bool
	id, err := c.open(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) {
			if use(info.Conn) {
				kept.Store(true)
			} else {
				other.Store(true)
			}
		},
	}), login, target)
	if err == nil {
		if other.Load() || !kept.Load() {
			c.neverReuse()
		}
		c.doubtful.Store(false)
	}
	return id, err
}

// goInBackground runs f in a goroutine that Close waits for. After Close it
// returns false.
func (c *Config) goInBackground(f func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.background.Go(f)
	}
	return !c.closed
}

// dialFailure is the failure of an open at this host, for the daemon; last is the
// stage that was entered last. If a request had no answer because of a network
// error, the SDK explains the cause better.
func dialFailure(host string, last sdk.Stage, err error) error {
	var e *Error
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &e):
	case e.Cause != nil && e.Err == ErrExchange && sdk.NetworkError(last, e.Cause).Hint != "":
		err = e.Cause
	default:
		return e.dialError(host, last)
	}
	return openFailure(host, err)
}

func openFailure(host string, err error) error {
	return fmt.Errorf("open at %s: %w", host, err)
}

// dialed reports the upstream's state after a dial. What the target is to blame
// for says that the upstream works.
func (c *Config) dialed(err error) {
	if errors.Is(err, context.Canceled) {
		return
	}
	var e *Error
	healthy := err == nil || errors.As(err, &e) && e.Err == ErrRefused && e.Reason != sdk.ReasonUnauthenticated
	c.tell(func(s *sdk.Status) {
		s.Health, s.Message = sdk.HealthOK, ""
		if !healthy {
			s.Health, s.Message = sdk.HealthFailing, err.Error()
		}
	})
}
