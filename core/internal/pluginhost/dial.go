package pluginhost

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tunneld/tunneld/core/internal/tunnel"
	"github.com/tunneld/tunneld/internal/bare"
	"github.com/tunneld/tunneld/internal/hostname"
	"github.com/tunneld/tunneld/internal/pluginwire"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

const (
	pathDirect = pluginv1.DataPath_DATA_PATH_DIRECT
	pathRelay  = pluginv1.DataPath_DATA_PATH_RELAY
)

// accepted are the data paths that the daemon takes.
var accepted = []pluginv1.DataPath{pathDirect, pathRelay}

// errNoAnswer cancels a dial whose descriptor has come and whose answer has not.
var errNoAnswer = errors.New("it passed a descriptor and did not answer")

// upstream is a tunnel.Dialer.
type upstream struct {
	upstreamName
	p          *Plugin
	generation uint64
	dials      chan struct{} // one for each that is under way
}

// Dial makes one connection. While the plugin is being restarted it waits,
// where that is a matter of a moment; a plugin that died with the dial under
// way, or keeps dying, is a retryable error. The deadline is ctx's alone; one
// without is bounded by the plugin's answering the host's pings.
func (u *upstream) Dial(ctx context.Context, d tunnel.Dial) (*tunnel.Conn, error) {
	p, err := u.p.acquire(ctx)
	if err != nil {
		return nil, u.unavailable(ctx, err)
	}
	if err := u.p.refusal(u.generation); err != nil {
		return nil, u.unavailable(ctx, err)
	}
	if !enter(ctx, u.dials) {
		return nil, u.crowded(ctx, u.dials, "upstream "+u.id())
	}
	defer leave(u.dials)
	if !enter(ctx, u.p.dials) {
		return nil, u.crowded(ctx, u.p.dials, fmt.Sprintf("plugin %q", u.plugin))
	}
	defer leave(u.p.dials)
	return p.Dial(ctx, u.generation, u.name, d)
}

// enter takes a place among the dials under way, unless ctx ends first.
func enter(ctx context.Context, dials chan struct{}) bool {
	select {
	case dials <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

func leave(dials chan struct{}) { <-dials }

func (u *upstream) crowded(ctx context.Context, dials chan struct{}, whose string) error {
	return u.fromContext(ctx, fmt.Sprintf("%d dials of %s are in progress already", cap(dials), whose))
}

// Dial makes one connection through an upstream of a generation that the process was
// given. An error is a *tunnel.DialError.
func (p *Process) Dial(ctx context.Context, generation uint64, name string, d tunnel.Dial) (_ *tunnel.Conn, err error) {
	u := upstreamName{p.spec.Name, name}
	callCtx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	k := p.tokens.issue(p.waits.handoff, func() { cancel(errNoAnswer) })
	relayed := false
	defer func() {
		if err != nil || !relayed {
			d := p.tokens.drop(k) // k.path is settled from here on
			p.reject(k.token, k.path, d, "the dial was given up")
		}
	}()
	req := request(d)
	req.Generation, req.Upstream, req.Token = generation, name, k.token
	answer, err := p.tunnels.Dial(callCtx, req)
	if err != nil {
		return nil, u.fromCall(callCtx, ctx, p, err)
	}
	var h *pluginv1.Handoff
	switch result := answer.GetResult().(type) {
	case *pluginv1.DialResponse_Error:
		return nil, u.fromPlugin(result.Error)
	case *pluginv1.DialResponse_Handoff:
		h = result.Handoff
	default:
		return nil, u.broken("it answered with a data path that was not offered", nil)
	}
	switch {
	case h.GetToken() != k.token:
		return nil, u.broken(fmt.Sprintf("it answered with token %d, not %d", h.GetToken(), k.token), nil)
	case h.GetPath() != pathDirect && h.GetPath() != pathRelay:
		return nil, u.broken("it answered with a data path that was not offered", nil)
	case len(h.GetPrefetched()) > pluginwire.MaxPrefetched:
		return nil, u.broken(fmt.Sprintf("it prefetched %d bytes, and at most %d are allowed", len(h.GetPrefetched()), pluginwire.MaxPrefetched), nil)
	}
	socket, err := p.take(ctx, u, k, h.GetPath())
	if err != nil {
		return nil, err
	}
	c := &tunnel.Conn{
		End:    tunnel.End{Socket: socket, Plugin: u.plugin, ReadAhead: h.GetPrefetched()},
		Path:   h.GetPath(),
		Local:  h.GetConnected().GetLocalAddress(),
		Remote: h.GetConnected().GetRemoteAddress(),
		Stages: stages(h.GetConnected().GetStages()),
	}
	if h.GetPath() == pathRelay {
		relayed = true
		c.Relay = newRelay(p, k)
	}
	return c, nil
}

// request is a dial as a plugin is asked for it. The dot at a name's end is for this
// machine's resolver: far ends compare names with lists of theirs, which have none.
func request(d tunnel.Dial) *pluginv1.DialRequest {
	return &pluginv1.DialRequest{
		Target:     &pluginv1.Target{Host: hostname.WithoutDot(d.Target.Host), Port: uint32(d.Target.Port)},
		Source:     d.Source,
		Listener:   d.Listener,
		Route:      d.Route,
		Connection: d.Connection,
		SocketOptions: &pluginv1.SocketOptions{
			Nodelay:           d.Socket.Nodelay,
			KeepaliveIdle:     durationpb.New(d.Socket.KeepaliveIdle),
			KeepaliveInterval: durationpb.New(d.Socket.KeepaliveInterval),
			KeepaliveCount:    uint32(max(d.Socket.KeepaliveCount, 0)),
			UserTimeout:       durationpb.New(d.Socket.UserTimeout),
		},
		Common:        &pluginv1.CommonSettings{HalfClose: durationpb.New(d.HalfClose)},
		AcceptedPaths: accepted,
	}
}

// take waits for the descriptor of an answered dial and checks it.
func (p *Process) take(ctx context.Context, u upstreamName, k *ticket, path pluginv1.DataPath) (*bare.Socket, error) {
	t := time.NewTimer(p.waits.handoff)
	defer t.Stop()
	select {
	case <-k.here:
	case <-p.tokens.gone:
	case <-t.C:
	case <-ctx.Done():
	}
	switch {
	case !closed(k.here) && ctx.Err() != nil:
		return nil, u.fromContext(ctx, "waited for the plugin's descriptor")
	case !closed(k.here) && closed(p.tokens.gone):
		return nil, u.unavailable(ctx, p.died())
	case !closed(k.here):
		return nil, u.broken(fmt.Sprintf("it answered and passed no descriptor within %s", p.waits.handoff), nil)
	case k.err != nil:
		return nil, u.lost("the descriptor did not arrive: "+k.err.Error(), limitHint, k.err)
	case k.path == pluginwire.PathDirect && path != pathDirect, k.path == pluginwire.PathRelay && path != pathRelay:
		return nil, u.broken("its answer and its descriptor name different data paths", nil)
	}
	d := p.tokens.claim(k)
	err := inspect(d.FD(), path)
	if err == nil {
		return bare.Adopt(d.FD())
	}
	p.reject(k.token, k.path, d, "the descriptor cannot be used")
	if errors.Is(err, errGone) {
		return nil, u.lost(err.Error(), goneHint, err)
	}
	return nil, u.broken(err.Error(), err)
}
