package sdk

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"reflect"
	"runtime/debug"
	"slices"
	"syscall"

	"github.com/tunneld/tunneld/internal/bare"
	"github.com/tunneld/tunneld/internal/follow"
	"github.com/tunneld/tunneld/internal/pluginwire"
	"github.com/tunneld/tunneld/internal/schema"
	"github.com/tunneld/tunneld/internal/tlsconf"
	"github.com/tunneld/tunneld/plugins/sdk/internal/serve"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// Package sdktest runs plugins as Serve does. What it needs for that is no author's, and
// gets there past the exported face of this package.
func init() {
	serve.Build = func(plugin any) (serve.Plugin, error) { return plugin.(Plugin).build() }
}

// build checks the plugin, its schema included, and returns it in the form that
// Serve and package sdktest run. Its error names everything that is wrong.
func (p Plugin) build() (serve.Plugin, error) {
	var errs []error
	if !schema.IsPluginName(p.Name) {
		errs = append(errs, fmt.Errorf("name %q: "+schema.PluginNameRule, p.Name))
	}
	if p.Version == "" {
		errs = append(errs, errors.New("no version"))
	}
	if p.New == nil {
		return serve.Plugin{}, fmt.Errorf("plugin %q: %w", p.Name, errors.Join(append(errs, errors.New("no New"))...))
	}
	block, err := SchemaOf(p.New())
	for _, c := range schema.OwnNames(block) {
		errs = append(errs, fmt.Errorf("%q: this attribute of every upstream belongs to the daemon: choose another name", c.Name()))
	}
	if err = errors.Join(append(errs, err)...); err != nil {
		return serve.Plugin{}, fmt.Errorf("plugin %q: %w", p.Name, err)
	}
	block.Targets = wireTargets[p.Targets]
	follower := new(follow.Follower)
	return serve.Plugin{
		Info: &pluginv1.GetInfoResponse{
			Name:         p.Name,
			Version:      p.Version,
			Summary:      p.Summary,
			NoHalfClose:  p.NoHalfClose,
			DataPaths:    []pluginv1.DataPath{pluginv1.DataPath_DATA_PATH_DIRECT, pluginv1.DataPath_DATA_PATH_RELAY},
			Capabilities: p.capabilities(),
			CommonNames:  schema.CommonTable(),
		},
		Schema:    block,
		SchemaFor: func(table uint32) *pluginv1.Block { return schemaFor(block, table) },
		New: func() serve.Instance {
			return &instance{schema: block, dialer: p.New(), noHalfClose: p.NoHalfClose, follower: follower, log: slog.New(slog.DiscardHandler)}
		},
	}, nil
}

// capabilities names what the protocol cannot do, and what the SDK does.
func (p Plugin) capabilities() []string {
	var names []string
	for _, c := range []struct {
		name string
		set  bool
	}{
		{pluginwire.NoTargetAnswer, p.NoTargetAnswer},
		{pluginwire.NoGreeting, p.NoGreeting},
		{pluginwire.NoAbort, p.NoAbort},
		{pluginwire.NoReset, p.NoReset},
		{pluginwire.HalfCloseClock, p.NoHalfClose},
	} {
		if c.set {
			names = append(names, c.name)
		}
	}
	return names
}

// instance is an author's struct as package serve knows it.
type instance struct {
	schema      *pluginv1.Block
	dialer      Dialer
	noHalfClose bool
	follower    *follow.Follower
	tls         *tlsKept // of one that has started
	follows     *follows // of one that has started
	way         way
	log         *slog.Logger
	watch       func(remote string, c syscall.RawConn) // nil: nobody watches
}

func (i *instance) Decode(u *pluginv1.Upstream) []*pluginv1.Diagnostic {
	config, ds := i.way.take(u)
	return wireDiagnostics(append(ds, decodeConfig(i.schema, config, i.dialer)...))
}

func (i *instance) Validate() []*pluginv1.Diagnostic {
	var out []*pluginv1.Diagnostic
	if v, ok := i.dialer.(Validator); ok {
		out = wireDiagnostics(v.Validate())
	}
	wrong := func(d *pluginv1.Diagnostic) bool { return d.GetSeverity() != pluginv1.Severity_SEVERITY_WARNING }
	if n, ok := i.dialer.(Noter); ok && !slices.ContainsFunc(out, wrong) {
		for _, d := range wireDiagnostics(n.Notes()) {
			d.Severity, d.Note = pluginv1.Severity_SEVERITY_WARNING, true
			out = append(out, d)
		}
	}
	return out
}

func (i *instance) Defaults() *pluginv1.CommonDefaults {
	var d Defaults
	if i.noHalfClose {
		d.HalfClose = DefaultHalfClose
	}
	if own, ok := i.dialer.(Defaulter); ok {
		set := own.Defaults()
		d.MaxConnections = set.MaxConnections
		d.HalfClose = cmp.Or(set.HalfClose, d.HalfClose)
	}
	return wireDefaults(d)
}

func (i *instance) Start(env serve.Env) error {
	i.log, i.watch = env.Log, env.Watch
	r := &reporter{send: env.Report}
	i.tls = &tlsKept{follower: i.follower, log: env.Log, changed: r.again, clients: map[tlsconf.ClientOptions]*tlsconf.Client{}, problems: map[tlsconf.ClientOptions]string{}}
	i.follows = newFollows(i.follower, env.Log, r.again)
	r.knows = append(r.knows, i.tls, i.follows)
	tlsBlocks(reflect.ValueOf(i.dialer), func(t *TLS) {
		t.kept = i.tls
		t.client()
	})
	i.way.tls = tlsBlock(i.dialer)
	i.way.tls.kept = i.tls
	s, ok := i.dialer.(Starter)
	if !ok {
		return nil
	}
	err := s.Start(&Env{
		Upstream: env.Upstream,
		Log:      env.Log,
		Report:   r.report,
		Outbound: Outbound{i.way.dialer(backgroundOptions, env.Watch)},
		follows:  i.follows,
	})
	if err != nil {
		i.follows.close()
		i.tls.close()
	}
	return err
}

func (i *instance) Close() error {
	if i.tls != nil {
		i.follows.close()
		defer i.tls.close()
	}
	if c, ok := i.dialer.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

func (i *instance) Dial(ctx context.Context, wire *pluginv1.DialRequest) (serve.Dialed, error) {
	req := newRequest(wire)
	req.watch, req.kept, req.way = i.watch, i.tls, &i.way
	t, err, fault := i.dial(ctx, req)
	stage, times := req.finish()
	out := serve.Dialed{Stages: wireTimes(times)}
	if fault == nil && err == nil {
		out.Tunnel, fault = t.handover(req.Options.Nodelay)
	}
	if fault == nil && err != nil {
		out.Failure = wireError(dialFailure(ctx, err, stage))
	}
	return out, fault
}

// dial calls the author's code. A fault is a mistake of that code; it fails this
// dial alone.
func (i *instance) dial(ctx context.Context, req *Request) (t *Tunnel, err, fault error) {
	defer func() {
		if p := recover(); p != nil {
			i.log.Error("the plugin panicked", "doing", "dial", "conn", req.Connection,
				"panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			fault = errors.New("the plugin panicked; its log has the details")
		}
	}()
	t, err = i.dialer.Dial(ctx, req)
	if t == nil && err == nil {
		fault = errors.New("the plugin returned neither a tunnel nor an error")
	}
	return t, err, fault
}

// handover checks a tunnel and returns it as package serve takes it. An error is
// a mistake of the author's code; the tunnel is taken down.
func (t *Tunnel) handover(nodelay bool) (*serve.Tunnel, error) {
	out := &serve.Tunnel{Local: t.local, Remote: t.remote}
	if t.conn == nil {
		if s, ok := t.stream.(*connStream); ok {
			setNodelay(bare.Under(s.Conn), nodelay)
		}
		out.Socket = socketOf(t.stream)
		out.Relay = func() serve.Stream { return t.stream }
		return out, nil
	}
	switch c := t.conn.(type) {
	case *net.TCPConn:
		setNodelay(c, nodelay)
		out.Conn, out.Socket = c, c
	case *net.UnixConn:
		out.Conn = c
	case *tls.Conn: // a connection through an https proxy
		s := newConnStream(c, t.prefetched)
		setNodelay(bare.Under(c), nodelay)
		out.Socket = socketOf(s)
		out.Relay = func() serve.Stream { return s }
		return out, nil
	default:
		_ = c.Close()
		return nil, fmt.Errorf("sdk.Direct was given a %T, which is not a kernel socket: the plugin has to use sdk.RelayConn", c)
	}
	out.Prefetched = t.prefetched
	out.Relay = func() serve.Stream { return newConnStream(t.conn, t.prefetched) }
	return out, nil
}

// setNodelay sets what net.Dialer cannot: it turns the option on after the
// connection is made.
func setNodelay(c net.Conn, nodelay bool) {
	if t, ok := c.(*net.TCPConn); ok && !nodelay {
		_ = t.SetNoDelay(false)
	}
}
