package sdktest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tunneld/tunneld/plugins/sdk"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// Upstream is one configured upstream in a generation of its own.
type Upstream struct {
	p          *Plugin
	generation uint64
	name, hash string
}

// DialOptions are what a dial is asked with besides its target. The zero value
// accepts both paths.
type DialOptions struct {
	// Accept lists the paths that the tunnel may take; empty: both.
	Accept []Path
	// Source is the client's address, "host:port", or empty.
	Source string
	// Listener, Route and Connection are the names in the request; may be empty.
	Listener, Route, Connection string
	// Socket is what the plugin's sockets are set to.
	Socket sdk.SocketOptions
	// HalfClose is the upstream's half_close; 0: a direction that has ended
	// sets no limit.
	HalfClose time.Duration
}

// Dial makes a connection to target, "host:port" or a label. A failed dial is a
// *sdk.DialError; a failure of the call itself, such as a panic in the plugin, is an
// error with a gRPC status. ctx is for the dial alone, not for the connection.
func (u *Upstream) Dial(ctx context.Context, target string) (*Conn, error) {
	return u.DialWith(ctx, target, DialOptions{Socket: sdk.SocketOptions{Nodelay: true}})
}

// DialWith is Dial with options.
func (u *Upstream) DialWith(ctx context.Context, target string, o DialOptions) (*Conn, error) {
	t, err := wireTarget(target)
	if err != nil {
		return nil, err
	}
	token, arrives := u.p.wire.expect()
	defer u.p.wire.forget(token)
	req := o.request(t)
	req.Generation, req.Upstream, req.Token = u.generation, u.name, token
	resp, err := u.p.tunnels.Dial(ctx, req)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", target, err)
	}
	if e := resp.GetError(); e != nil {
		return nil, dialError(e)
	}
	h := resp.GetHandoff()
	if h == nil {
		return nil, errors.New("dial: the answer is neither a handoff nor an error")
	}
	conn, tunnel, err := u.p.wire.claim(ctx, token, arrives)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", target, err)
	}
	return &Conn{
		Conn:      conn,
		Path:      Path(h.GetPath().Text()),
		Local:     h.GetConnected().GetLocalAddress(),
		Remote:    h.GetConnected().GetRemoteAddress(),
		Stages:    stageTimes(h.GetConnected().GetStages()),
		ReadAhead: h.GetPrefetched(),
		pending:   h.GetPrefetched(),
		tunnel:    tunnel,
	}, nil
}

// Release drops the upstream's generation. It may be called more than once.
func (u *Upstream) Release(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), callTimeout)
	defer cancel()
	if _, err := u.p.control.Release(ctx, &pluginv1.ReleaseRequest{Generation: u.generation}); err != nil {
		t.Errorf("release upstream %q: %v", u.name, err)
	}
}

// AwaitStatus waits until the upstream's state is as wanted and returns it. It
// fails the test when ctx is done before.
func (u *Upstream) AwaitStatus(ctx context.Context, t testing.TB, want func(sdk.Status) bool) (last sdk.Status) {
	t.Helper()
	u.await(ctx, t, func(st *pluginv1.UpstreamStatus) bool {
		last = statusOf(st)
		return want(last)
	})
	return last
}

// AwaitFileProblem waits until a file of a tls block, or one that Env.Follow follows, has
// changed and cannot be used, for a reason that holds text; what it held before then stays in use. It fails the
// test when ctx is done before.
func (u *Upstream) AwaitFileProblem(ctx context.Context, t testing.TB, text string) {
	t.Helper()
	u.await(ctx, t, func(st *pluginv1.UpstreamStatus) bool {
		return st.GetFileProblem() != "" && strings.Contains(st.GetFileProblem(), text)
	})
}

func (u *Upstream) await(ctx context.Context, t testing.TB, want func(*pluginv1.UpstreamStatus) bool) {
	t.Helper()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := u.p.control.WatchStatus(ctx, &pluginv1.WatchStatusRequest{})
	if err != nil {
		t.Fatalf("watch status: %v", err)
	}
	var last *pluginv1.UpstreamStatus
	for {
		resp, err := stream.Recv()
		if err != nil {
			t.Fatalf("status of upstream %q was last %v: %v", u.name, last, err)
		}
		for _, st := range resp.GetUpstreams() {
			if st.GetName() != u.name || st.GetConfigHash() != u.hash {
				continue
			}
			if last = st; want(st) {
				return
			}
		}
	}
}
