package serve

import (
	"context"
	"syscall"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tunneld/tunneld/internal/neterr"
	"github.com/tunneld/tunneld/internal/pluginwire"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// syscallConn is a kernel socket that can be handed over.
type syscallConn interface {
	syscall.Conn
	Close() error
}

// Dial makes one connection and hands it over. What was made for a call that
// has ended meanwhile is taken down again.
func (s *Server) Dial(ctx context.Context, req *pluginv1.DialRequest) (*pluginv1.DialResponse, error) {
	switch {
	case req.GetToken() == 0:
		return nil, status.Error(codes.InvalidArgument, "token is 0")
	case req.GetTarget().GetHost() == "":
		return nil, status.Error(codes.InvalidArgument, "no target")
	case req.GetTarget().GetPort() > 65535:
		return nil, status.Error(codes.InvalidArgument, "target's port is past 65535")
	}
	i, err := s.begin(req)
	if err != nil {
		return nil, err
	}
	defer s.finish(req.GetToken(), i)

	dialCtx, cancel := s.dialContext(ctx)
	defer cancel()
	d, err := i.Dial(dialCtx, req)
	if ctx.Err() != nil || s.ctx.Err() != nil {
		if d.Tunnel != nil {
			s.discard(d.Tunnel, "the dial was cancelled")
		}
		if ctx.Err() != nil {
			return nil, status.FromContextError(ctx.Err()).Err()
		}
		return nil, errStopping
	}
	if err != nil {
		return nil, status.Error(codes.Internal, clean(err.Error()))
	}
	if f := d.Failure; f != nil {
		f.Message, f.Hint, f.Stages = clean(f.GetMessage()), clean(f.GetHint()), d.Stages
		return &pluginv1.DialResponse{Result: &pluginv1.DialResponse_Error{Error: f}}, nil
	}
	handoff, err := s.handOver(req, d.Tunnel)
	if err != nil {
		return nil, err
	}
	handoff.Connected = &pluginv1.Connected{
		LocalAddress:  clean(d.Tunnel.Local),
		RemoteAddress: clean(d.Tunnel.Remote),
		Stages:        d.Stages,
	}
	return &pluginv1.DialResponse{Result: &pluginv1.DialResponse_Handoff{Handoff: handoff}}, nil
}

// begin finds the instance, holds it, and counts the dial.
func (s *Server) begin(req *pluginv1.DialRequest) (*instance, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining {
		return nil, status.Error(codes.Unavailable, "the plugin is draining")
	}
	members, ok := s.generations[req.GetGeneration()]
	if !ok {
		return nil, status.Errorf(codes.NotFound, "generation %d is not known", req.GetGeneration())
	}
	i := members[req.GetUpstream()]
	if i == nil {
		return nil, status.Errorf(codes.NotFound, "generation %d has no upstream %q", req.GetGeneration(), req.GetUpstream())
	}
	token := req.GetToken()
	if _, dup := s.inflight[token]; dup || s.relays[token] != nil {
		return nil, status.Errorf(codes.InvalidArgument, "token %d is in use", token)
	}
	if len(s.inflight) >= s.maxDials {
		return nil, status.Errorf(codes.ResourceExhausted, "%d dials are in flight already", s.maxDials)
	}
	s.inflight[token] = struct{}{}
	i.refs++
	return i, nil
}

func (s *Server) finish(token uint64, i *instance) {
	s.drop(i)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.inflight, token)
	s.shrunk()
}

// dialContext ends with the call, shortly before its deadline, and when the
// server stops.
func (s *Server) dialContext(ctx context.Context) (context.Context, context.CancelFunc) {
	outer, cancelOuter := beforeDeadline(ctx, neterr.ErrOvertime)
	inner, cancelInner := context.WithTimeout(outer, maxDialTime)
	release := context.AfterFunc(s.ctx, cancelInner)
	return inner, func() {
		release()
		cancelInner()
		cancelOuter()
	}
}

// handOver sends the tunnel's descriptor. On an error the tunnel has been taken
// down.
func (s *Server) handOver(req *pluginv1.DialRequest, t *Tunnel) (*pluginv1.Handoff, error) {
	var direct, relayed bool
	for _, p := range req.GetAcceptedPaths() {
		direct = direct || p == pluginv1.DataPath_DATA_PATH_DIRECT
		relayed = relayed || p == pluginv1.DataPath_DATA_PATH_RELAY
	}
	h := &pluginv1.Handoff{Token: req.GetToken()}
	switch {
	case direct && t.Conn != nil && len(t.Prefetched) <= pluginwire.MaxPrefetched:
		h.Path = pluginv1.DataPath_DATA_PATH_DIRECT
		h.Prefetched = t.Prefetched
		return h, s.sendDirect(req.GetToken(), t.Conn)
	case relayed:
		h.Path = pluginv1.DataPath_DATA_PATH_RELAY
		return h, s.startRelay(req, t)
	}
	s.discard(t, "no accepted data path")
	return nil, status.Errorf(codes.FailedPrecondition, "the tunnel fits none of the accepted data paths %v", req.GetAcceptedPaths())
}

// sendDirect passes the descriptor and closes the plugin's copy of it. No FIN
// follows from that: the daemon's copy keeps the connection open.
func (s *Server) sendDirect(token uint64, conn syscallConn) error {
	err := s.channel.Send(pluginwire.Record{Kind: pluginwire.Handoff, Token: token, Path: pluginwire.PathDirect}, conn)
	if closeErr := conn.Close(); closeErr != nil {
		s.log.Debug("closing a socket that was handed over", "err", closeErr)
	}
	if err != nil {
		return status.Errorf(codes.Unavailable, "hand over: %v", err)
	}
	return nil
}

// discard takes a tunnel down that nobody gets.
func (s *Server) discard(t *Tunnel, reason string) {
	if t.Conn == nil {
		s.abort(t.Relay(), reason)
		return
	}
	if err := t.Conn.Close(); err != nil {
		s.log.Debug("closing a socket that nobody gets", "err", err)
	}
}

// abort calls Stream.Abort, which is the plugin's code; guard logs its panics.
func (s *Server) abort(stream Stream, reason string) {
	_ = s.guard("aborting a tunnel", func() error {
		stream.Abort(reason)
		return nil
	})
}
