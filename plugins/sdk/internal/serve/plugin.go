package serve

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

var errStopping = status.Error(codes.Unavailable, "the plugin is stopping")

// GetInfo says what the plugin is.
func (s *Server) GetInfo(_ context.Context, req *pluginv1.GetInfoRequest) (*pluginv1.GetInfoResponse, error) {
	if table := req.GetCommonNames(); table > 0 { // it may be missing in a later call
		s.commonNames.Store(table)
	}
	return s.plugin.Info, nil
}

// GetSchema says what an upstream block may hold.
func (s *Server) GetSchema(context.Context, *pluginv1.GetSchemaRequest) (*pluginv1.GetSchemaResponse, error) {
	schema := s.plugin.Schema
	if s.plugin.SchemaFor != nil {
		schema = s.plugin.SchemaFor(s.commonNames.Load())
	}
	return &pluginv1.GetSchemaResponse{Upstream: schema}, nil
}

// ValidateConfig checks one upstream on an instance that is then forgotten.
func (s *Server) ValidateConfig(_ context.Context, req *pluginv1.ValidateConfigRequest) (*pluginv1.ValidateConfigResponse, error) {
	if req.GetUpstream() == nil {
		return nil, status.Error(codes.InvalidArgument, "no upstream")
	}
	i, ds := s.make(req.GetUpstream())
	resp := &pluginv1.ValidateConfigResponse{Diagnostics: ds}
	if hasError(ds) {
		return resp, nil
	}
	err := s.guard("naming the defaults", func() error {
		resp.Defaults = i.Defaults()
		return nil
	})
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return resp, nil
}

// Drain refuses new dials from now on. Its answer comes shortly before the
// call's deadline, since one that comes after it is not heard.
func (s *Server) Drain(ctx context.Context, _ *pluginv1.DrainRequest) (*pluginv1.DrainResponse, error) {
	ctx, cancel := beforeDeadline(ctx, nil)
	defer cancel()
	s.mu.Lock()
	s.draining = true
	s.mu.Unlock()
	// A dial in flight may yet become a relay.
	if err := s.wait(ctx, func() bool { return len(s.inflight) == 0 && len(s.relays) == 0 }); err != nil {
		s.log.Debug("drain ended before the tunnels did", "err", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return &pluginv1.DrainResponse{Remaining: uint32(len(s.relays))}, nil
}

// beforeDeadline ends a little before ctx, so that an answer that says how far
// things had come still arrives: a tenth of the time, 500 ms at most. The cause
// may be nil.
func beforeDeadline(ctx context.Context, cause error) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return context.WithCancel(ctx)
	}
	margin := min(time.Until(deadline)/10, 500*time.Millisecond)
	return context.WithDeadlineCause(ctx, deadline.Add(-margin), cause)
}

// maxText bounds a text that is told to the daemon, in bytes.
const maxText = 4 << 10

// clean makes text of the plugin's fit for protobuf, whose strings are UTF-8,
// and bounds it.
func clean(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= maxText {
		return s
	}
	n := maxText
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "…"
}

func cleanDiagnostic(d *pluginv1.Diagnostic) {
	d.Summary, d.Detail = clean(d.GetSummary()), clean(d.GetDetail())
	for i, p := range d.GetPath() {
		d.Path[i] = clean(p)
	}
}

func recoverUnary(log *slog.Logger) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (_ any, err error) {
		defer func() { recovered(recover(), log, info.FullMethod, &err) }()
		return handler(ctx, req)
	}
}

func recoverStream(log *slog.Logger) grpc.StreamServerInterceptor {
	return func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
		defer func() { recovered(recover(), log, info.FullMethod, &err) }()
		return handler(srv, stream)
	}
}

func recovered(p any, log *slog.Logger, method string, err *error) {
	if p != nil {
		log.Error("the plugin panicked", "doing", method, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
		*err = status.Error(codes.Internal, "the plugin panicked; its log has the details")
	}
}
