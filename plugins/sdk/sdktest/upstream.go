package sdktest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

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
// accepts the direct and the relay path.
type DialOptions struct {
	// Accept lists the accepted data paths; empty: direct and relay.
	Accept                      []pluginv1.DataPath
	Source                      string
	Listener, Route, Connection string
	Socket                      sdk.SocketOptions
	// HalfClose is the upstream's half_close; 0: a direction that has ended
	// sets no limit.
	HalfClose time.Duration
}

// Dial makes a connection to target, "host:port" or a label. An error of the
// plugin's is a *sdk.DialError; a failure of the call itself is a gRPC status.
func (u *Upstream) Dial(ctx context.Context, target string) (*Conn, error) {
	return u.DialWith(ctx, target, DialOptions{Socket: sdk.SocketOptions{Nodelay: true}})
}

// DialWith is Dial with options.
func (u *Upstream) DialWith(ctx context.Context, target string, o DialOptions) (*Conn, error) {
	t, err := parseTarget(target)
	if err != nil {
		return nil, err
	}
	if len(o.Accept) == 0 {
		o.Accept = []pluginv1.DataPath{pluginv1.DataPath_DATA_PATH_DIRECT, pluginv1.DataPath_DATA_PATH_RELAY}
	}
	token, arrives := u.p.wire.expect()
	defer u.p.wire.forget(token)
	resp, err := u.p.tunnels.Dial(ctx, &pluginv1.DialRequest{
		Generation:    u.generation,
		Upstream:      u.name,
		Target:        t,
		Token:         token,
		Source:        o.Source,
		Listener:      o.Listener,
		Route:         o.Route,
		Connection:    o.Connection,
		AcceptedPaths: o.Accept,
		SocketOptions: &pluginv1.SocketOptions{
			Nodelay:           o.Socket.Nodelay,
			KeepaliveIdle:     wireDuration(o.Socket.KeepaliveIdle),
			KeepaliveInterval: wireDuration(o.Socket.KeepaliveInterval),
			KeepaliveCount:    uint32(o.Socket.KeepaliveCount),
			UserTimeout:       wireDuration(o.Socket.UserTimeout),
		},
		Common: &pluginv1.CommonSettings{HalfClose: wireDuration(o.HalfClose)},
	})
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
		Path:      h.GetPath(),
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
		last = sdk.Status{Health: st.GetHealth(), Message: st.GetMessage(), Unreleased: int(st.GetUnreleased())}
		if e := st.GetCredentialExpires(); e != nil {
			last.CredentialExpires = e.AsTime()
		}
		if r := st.GetCredentialRenewed(); r != nil {
			last.CredentialRenewed = r.AsTime()
		}
		return want(last)
	})
	return last
}

// AwaitFileProblem waits until a file of a tls block has changed and cannot be used,
// for a reason that holds text; what it held before then stays in use. It fails the
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

func parseTarget(target string) (*pluginv1.Target, error) {
	host, port, err := net.SplitHostPort(target)
	if err != nil {
		return &pluginv1.Target{Host: target}, nil
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("dial %s: the port is not a number", target)
	}
	return &pluginv1.Target{Host: host, Port: uint32(n)}, nil
}

func wireDuration(d time.Duration) *durationpb.Duration {
	if d == 0 {
		return nil
	}
	return durationpb.New(d)
}

func dialError(e *pluginv1.DialError) *sdk.DialError {
	return &sdk.DialError{
		Stage:      e.GetStage(),
		Reason:     e.GetReason(),
		Retryable:  e.GetRetryable(),
		Message:    e.GetMessage(),
		Hint:       e.GetHint(),
		RetryAfter: e.GetRetryAfter().AsDuration(),
	}
}

func stageTimes(wire []*pluginv1.StageTime) []sdk.StageTime {
	out := make([]sdk.StageTime, len(wire))
	for i, s := range wire {
		out[i] = sdk.StageTime{Stage: s.GetStage(), Duration: s.GetDuration().AsDuration()}
	}
	return out
}
