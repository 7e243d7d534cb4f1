package conformance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/tunneld/tunneld/internal/pluginwire"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// rawName is a plugin made from the protocol's page alone, without the SDK. It
// does all as the page has it, but for one thing: what KIT_MODE says.
const rawName = "raw"

type raw struct {
	pluginv1.UnimplementedPluginServiceServer
	pluginv1.UnimplementedTunnelServiceServer
	mode    string
	channel *pluginwire.Channel
	slots   chan struct{} // of mode "32 at most"
	asked   int

	mu          sync.Mutex
	generations map[uint64][]*pluginv1.Upstream
	relays      map[uint64]*rawRelay
	draining    bool
	changed     chan struct{} // closed and replaced when a relay ends or Drain begins
	kept        []any         // what a mode leaves open
}

// rawConfig is an upstream's values.
type rawConfig struct {
	path   string
	secret string
	probe  string // where to connect in mode "dials in the validation"
}

func serveRaw() int {
	r := &raw{
		mode:        os.Getenv("KIT_MODE"),
		slots:       make(chan struct{}, 32),
		generations: map[uint64][]*pluginv1.Upstream{},
		relays:      map[uint64]*rawRelay{},
		changed:     make(chan struct{}),
	}
	fd, err := strconv.Atoi(os.Getenv(pluginwire.EnvChannel))
	if err != nil {
		return 1
	}
	if r.channel, err = pluginwire.Inherit(uintptr(fd)); err != nil {
		return 1
	}
	r.mischief()
	ln, err := net.Listen("unix", filepath.Join(os.Getenv("PLUGIN_UNIX_SOCKET_DIR"), "s"))
	if err != nil {
		return 1
	}
	s := grpc.NewServer()
	pluginv1.RegisterPluginServiceServer(s, r)
	pluginv1.RegisterTunnelServiceServer(s, r)
	h := health.NewServer()
	h.SetServingStatus("plugin", healthv1.HealthCheckResponse_SERVING)
	healthv1.RegisterHealthServer(s, h)
	go r.receive()
	fmt.Printf("1|1|unix|%s|grpc|\n", ln.Addr())
	if err := s.Serve(ln); err != nil {
		return 1
	}
	return 0
}

// receive handles the daemon's records, and ends the process with the channel.
func (r *raw) receive() {
	for {
		got, err := r.channel.Receive()
		var bad *pluginwire.BadRecordError
		if errors.As(err, &bad) {
			continue
		}
		if err != nil {
			if r.mode == "survives the daemon" {
				return
			}
			r.endAll()
			os.Exit(0)
		}
		r.mu.Lock()
		l := r.relays[got.Token]
		r.mu.Unlock()
		switch {
		case l == nil:
		case got.Kind == pluginwire.EOF:
			close(l.announced)
		case got.Kind == pluginwire.Abort:
			_ = l.far.SetLinger(0)
			if r.mode == "an abort is a clean end" || r.mode == "says what it cannot" {
				_ = l.far.SetLinger(-1)
			}
			l.breakOff()
		}
	}
}

// endAll breaks off all relays.
func (r *raw) endAll() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.relays {
		_ = l.far.SetLinger(0)
		if r.mode == "ends its relays cleanly without the daemon" || r.mode == "says what it cannot" {
			_ = l.far.SetLinger(-1)
		}
		_ = l.far.Close()
	}
}

func (r *raw) GetInfo(context.Context, *pluginv1.GetInfoRequest) (*pluginv1.GetInfoResponse, error) {
	i := &pluginv1.GetInfoResponse{Name: rawName, Version: "0.1", Summary: "made from the page alone"}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch r.mode {
	case "no version":
		i.Version = ""
	case "a version of two lines":
		i.Version = "0.1\nand more"
	case "another summary each time":
		r.asked++
		i.Summary = fmt.Sprint("asked ", r.asked, " times")
	case "tells no cut from an end":
		i.Capabilities = []string{pluginwire.NoReset}
	case "cannot half-close":
		i.NoHalfClose = true
	case "says what it cannot":
		i.NoHalfClose = true
		i.Capabilities = []string{pluginwire.NoAbort, pluginwire.NoGreeting, pluginwire.NoTargetAnswer}
	}
	return i, nil
}

func (r *raw) GetSchema(context.Context, *pluginv1.GetSchemaRequest) (*pluginv1.GetSchemaResponse, error) {
	text := &pluginv1.Type{Kind: pluginv1.Kind_KIND_STRING}
	b := &pluginv1.Block{Doc: "raw", Attributes: []*pluginv1.Attribute{
		{Name: "path", Type: text, DefaultJson: `"relay"`, Doc: "direct or relay"},
		{Name: "secret", Type: text, Required: true, Sensitive: true, Doc: "a password"},
		{Name: "probe", Type: text, Doc: "an address"},
	}}
	switch r.mode {
	case "a name twice":
		b.Attributes = append(b.Attributes, b.Attributes[0])
	case "an empty name":
		b.Attributes[2].Name = ""
	case "a bad name":
		b.Attributes[2].Name = "Probe-Address"
	case "a default of another type":
		b.Attributes[0].DefaultJson = "7"
	case "no doc":
		b.Attributes[2].Doc = ""
	}
	return &pluginv1.GetSchemaResponse{Upstream: b}, nil
}

// decode is strict, as section 4 of the page wants it.
func (r *raw) decode(u *pluginv1.Upstream) (rawConfig, []*pluginv1.Diagnostic) {
	var c rawConfig
	var ds []*pluginv1.Diagnostic
	wrong := func(summary string, path ...string) {
		if r.mode == "errors without a path" {
			path = nil
		}
		ds = append(ds, &pluginv1.Diagnostic{Severity: pluginv1.Severity_SEVERITY_ERROR, Summary: summary, Path: path, Upstream: u.GetName()})
	}
	var values map[string]any
	if err := json.Unmarshal(u.GetConfigJson(), &values); err != nil {
		wrong("not an object")
		return c, ds
	}
	fields := map[string]*string{"path": &c.path, "secret": &c.secret, "probe": &c.probe}
	for name, v := range values {
		text, ok := v.(string)
		switch to := fields[name]; {
		case to == nil:
			wrong("unknown", name)
		case !ok && r.mode != "takes values of a wrong type":
			wrong("not a text", name)
		default:
			*to = text
		}
	}
	if _, ok := values["secret"]; !ok && r.mode != "takes what is not complete" {
		wrong("missing", "secret")
	}
	return c, ds
}

func (r *raw) ValidateConfig(_ context.Context, req *pluginv1.ValidateConfigRequest) (*pluginv1.ValidateConfigResponse, error) {
	c, ds := r.decode(req.GetUpstream())
	r.mu.Lock()
	defer r.mu.Unlock()
	r.validating(c, &ds)
	return &pluginv1.ValidateConfigResponse{Diagnostics: ds}, nil
}

func (r *raw) Configure(_ context.Context, req *pluginv1.ConfigureRequest) (*pluginv1.ConfigureResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	g := req.GetGeneration()
	if _, ok := r.generations[g]; ok && r.mode != "takes a generation twice" {
		return nil, status.Errorf(codes.AlreadyExists, "generation %d", g)
	}
	var all []*pluginv1.Diagnostic
	for _, u := range req.GetUpstreams() {
		c, ds := r.decode(u)
		all = append(all, ds...)
		if r.mode == "logs its password" {
			fmt.Fprintf(os.Stderr, "{\"level\":\"DEBUG\",\"msg\":\"configured\",\"secret\":%q}\n", c.secret)
		}
	}
	if len(all) > 0 && r.mode != "keeps a broken generation" {
		return &pluginv1.ConfigureResponse{Diagnostics: all}, nil
	}
	if r.mode == "replaces the generation" {
		clear(r.generations)
	}
	r.generations[g] = req.GetUpstreams()
	return &pluginv1.ConfigureResponse{Diagnostics: all}, nil
}

func (r *raw) Release(_ context.Context, req *pluginv1.ReleaseRequest) (*pluginv1.ReleaseResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mode != "does not release" {
		delete(r.generations, req.GetGeneration())
	}
	return &pluginv1.ReleaseResponse{}, nil
}

func (r *raw) WatchStatus(_ *pluginv1.WatchStatusRequest, stream grpc.ServerStreamingServer[pluginv1.WatchStatusResponse]) error {
	first := &pluginv1.WatchStatusResponse{}
	r.mu.Lock()
	for g, upstreams := range r.generations {
		for _, u := range upstreams {
			known := slices.ContainsFunc(first.Upstreams, func(s *pluginv1.UpstreamStatus) bool { return s.GetName() == u.GetName() })
			if !known && r.mode != "an empty status" {
				first.Upstreams = append(first.Upstreams, &pluginv1.UpstreamStatus{Name: r.generations[g][0].GetName(), ConfigHash: u.GetConfigHash()})
			}
		}
	}
	r.mu.Unlock()
	if err := stream.Send(first); err != nil {
		return err
	}
	<-stream.Context().Done()
	return nil
}

func (r *raw) Drain(ctx context.Context, _ *pluginv1.DrainRequest) (*pluginv1.DrainResponse, error) {
	if r.mode == "drains nothing" {
		return &pluginv1.DrainResponse{}, nil
	}
	if d, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		// At half time: the answer is not late, however busy the machine is.
		ctx, cancel = context.WithTimeout(ctx, time.Until(d)/2)
		defer cancel()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.draining = r.mode != "takes dials while it drains"
	for len(r.relays) > 0 && ctx.Err() == nil && r.mode != "does not wait while it drains" {
		changed := r.changed
		r.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
		}
		r.mu.Lock()
	}
	if r.mode == "breaks tunnels off while it drains" {
		for _, l := range r.relays {
			_ = l.far.Close()
		}
	}
	return &pluginv1.DrainResponse{Remaining: uint32(len(r.relays))}, nil
}

// upstream finds what a dial names.
func (r *raw) upstream(req *pluginv1.DialRequest) (rawConfig, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.draining {
		return rawConfig{}, status.Error(codes.Unavailable, "draining")
	}
	for _, u := range r.generations[req.GetGeneration()] {
		if u.GetName() == req.GetUpstream() {
			c, _ := r.decode(u)
			return c, nil
		}
	}
	return rawConfig{}, status.Errorf(codes.NotFound, "generation %d has no upstream %q", req.GetGeneration(), req.GetUpstream())
}

func (r *raw) Dial(ctx context.Context, req *pluginv1.DialRequest) (*pluginv1.DialResponse, error) {
	c, err := r.upstream(req)
	if err != nil {
		return nil, err
	}
	if answer, err := r.insteadOfDial(ctx, req, c); answer != nil || err != nil {
		return answer, err
	}
	conn, err := r.connect(ctx, req)
	if err != nil {
		return r.dialFailed(ctx, err)
	}
	far := conn.(*net.TCPConn)
	if ctx.Err() != nil {
		_ = far.Close()
		return nil, status.FromContextError(ctx.Err()).Err()
	}
	far = r.connected(req, far)
	h := &pluginv1.Handoff{Token: req.GetToken(), Path: pluginv1.DataPath_DATA_PATH_DIRECT, Connected: &pluginv1.Connected{
		LocalAddress: far.LocalAddr().String(), RemoteAddress: far.RemoteAddr().String(),
	}}
	switch {
	case r.mode == "a relay that says direct":
		err = r.relay(req.GetToken(), far, pluginwire.PathDirect)
	case c.path == "direct":
		err = r.channel.Send(pluginwire.Record{Kind: pluginwire.Handoff, Token: req.GetToken(), Path: pluginwire.PathDirect}, far)
		_ = far.Close()
	default:
		h.Path = pluginv1.DataPath_DATA_PATH_RELAY
		err = r.relay(req.GetToken(), far, pluginwire.PathRelay)
	}
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return &pluginv1.DialResponse{Result: &pluginv1.DialResponse_Handoff{Handoff: h}}, nil
}

func (r *raw) connect(ctx context.Context, req *pluginv1.DialRequest) (net.Conn, error) {
	if r.mode == "ignores the cancellation" {
		ctx = context.Background()
	}
	address := net.JoinHostPort(req.GetTarget().GetHost(), strconv.Itoa(int(req.GetTarget().GetPort())))
	return new(net.Dialer).DialContext(ctx, "tcp", address)
}

func (r *raw) dialFailed(ctx context.Context, err error) (*pluginv1.DialResponse, error) {
	if r.mode == "32 at most" {
		<-r.slots
	}
	if ctx.Err() != nil {
		return nil, status.FromContextError(ctx.Err()).Err()
	}
	e := &pluginv1.DialError{Stage: pluginv1.Stage_STAGE_CONNECT, Reason: pluginv1.Reason_REASON_REFUSED, Retryable: true, Message: err.Error()}
	switch r.mode {
	case "an error without a type":
		return nil, status.Error(codes.Unknown, err.Error())
	case "an error without a stage":
		e.Stage = 0
	case "an error of another reason":
		e.Reason = pluginv1.Reason_REASON_UNAUTHENTICATED
	case "an error without a word":
		e.Message = ""
	case "an error of one word":
		e.Message = e.GetReason().Text()
	case "keeps a descriptor of each refusal":
		if f, err := os.Open(os.DevNull); err == nil {
			r.keep(f)
		}
	case "does not answer":
		<-ctx.Done()
		return nil, status.FromContextError(ctx.Err()).Err()
	}
	return &pluginv1.DialResponse{Result: &pluginv1.DialResponse_Error{Error: e}}, nil
}

func (r *raw) keep(v any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.kept = append(r.kept, v)
}
