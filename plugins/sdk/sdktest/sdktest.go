// Package sdktest runs a plugin in a test's process as the daemon would run it
// in one of its own: through real gRPC on a unix socket and a real descriptor
// channel, over the code that sdk.Serve runs.
//
//	p := sdktest.Start(t, acme.Plugin())
//	u := p.Configure(t, "onprem", map[string]any{
//		"proxy":    proxy.Addr(),
//		"timeouts": map[string]any{"connect": "2s"},
//	})
//	c, err := u.Dial(ctx, "orders-db:5432")
//
// It has no routes, limits or retries: those are the daemon's.
package sdktest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/tunneld/tunneld/internal/pluginwire"
	"github.com/tunneld/tunneld/plugins/sdk"
	"github.com/tunneld/tunneld/plugins/sdk/internal/serve"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// callTimeout bounds each call that a test gives no context for.
const callTimeout = 10 * time.Second

// Plugin is a plugin that runs. Its methods may be called by several goroutines.
type Plugin struct {
	schema  *pluginv1.Block
	control pluginv1.PluginServiceClient
	tunnels pluginv1.TunnelServiceClient
	wire    *wire

	server *serve.Server
	rpc    *grpc.Server
	conn   *grpc.ClientConn
	dir    string
	served chan struct{}
	once   sync.Once

	mu         sync.Mutex
	generation uint64
}

// Start runs a plugin until the test ends. Its log goes to the test's. It fails
// the test where the plugin's description or struct is wrong, and at the end
// where a dial is still in flight or an upstream does not close.
func Start(t testing.TB, p sdk.Plugin) *Plugin {
	t.Helper()
	return StartWithLog(t, p, slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})))
}

// StartWithLog is Start with a log of the test's own, to look at what a plugin
// writes.
func StartWithLog(t testing.TB, p sdk.Plugin, log *slog.Logger) *Plugin {
	t.Helper()
	s, err := start(p, log)
	if err != nil {
		t.Fatalf("start plugin: %v", err)
	}
	t.Cleanup(func() {
		if err := s.stop(); err != nil {
			t.Errorf("stop plugin: %v", err)
		}
	})
	return s
}

func start(p sdk.Plugin, log *slog.Logger) (*Plugin, error) {
	built, err := serve.Build(p)
	if err != nil {
		return nil, err
	}
	core, file, err := pluginwire.Pair()
	if err != nil {
		return nil, err
	}
	channel, err := pluginwire.Open(file)
	if err != nil {
		return nil, errors.Join(err, core.Close())
	}
	// Not t.TempDir: a test's name can make the path longer than the 108 bytes
	// that a unix socket's may have.
	dir, err := os.MkdirTemp("", "sdktest")
	if err != nil {
		return nil, errors.Join(err, core.Close(), channel.Close())
	}
	socket := filepath.Join(dir, "rpc")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return nil, errors.Join(err, core.Close(), channel.Close(), os.RemoveAll(dir))
	}
	conn, err := grpc.NewClient("unix:"+socket,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(pluginwire.MaxMessage), grpc.MaxCallSendMsgSize(pluginwire.MaxMessage)))
	if err != nil {
		return nil, errors.Join(err, listener.Close(), core.Close(), channel.Close(), os.RemoveAll(dir))
	}
	s := &Plugin{
		schema:  built.Schema,
		control: pluginv1.NewPluginServiceClient(conn),
		tunnels: pluginv1.NewTunnelServiceClient(conn),
		wire:    newWire(core),
		server:  serve.New(built, serve.Options{Channel: channel, Log: log}),
		rpc:     grpc.NewServer(serve.ServerOptions(log)...),
		conn:    conn,
		dir:     dir,
		served:  make(chan struct{}),
	}
	s.server.Register(s.rpc)
	go func() {
		defer close(s.served)
		if err := s.rpc.Serve(listener); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			log.Error("gRPC server", "err", err)
		}
	}()
	return s, nil
}

// stop ends everything that start made.
func (p *Plugin) stop() error {
	var err error
	p.once.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
		defer cancel()
		err = errors.Join(p.server.Stop(ctx), p.conn.Close())
		p.rpc.Stop()
		<-p.served
		err = errors.Join(err, p.wire.close(), os.RemoveAll(p.dir))
	})
	return err
}

// Stop ends the plugin before the test does, as SIGTERM would: dials are
// cancelled, relay tunnels aborted, upstreams closed.
func (p *Plugin) Stop(t testing.TB) {
	t.Helper()
	if err := p.stop(); err != nil {
		t.Errorf("stop plugin: %v", err)
	}
}

// LoseDaemon closes the daemon's end of the descriptor channel, as its death
// would: the plugin aborts its relay tunnels.
func (p *Plugin) LoseDaemon() error { return p.wire.close() }

// Control is the plugin's control service, for what this package has no method
// for.
func (p *Plugin) Control() pluginv1.PluginServiceClient { return p.control }

// Tunnels is the plugin's tunnel service. A descriptor that comes for a dial
// which this package has not made is closed.
func (p *Plugin) Tunnels() pluginv1.TunnelServiceClient { return p.tunnels }

// Schema returns what an upstream block may hold.
func (p *Plugin) Schema() *pluginv1.Block { return p.schema }

// Drain makes the plugin refuse new dials and waits for its relay tunnels. It
// returns how many were left when ctx ended.
func (p *Plugin) Drain(ctx context.Context) (remaining int, err error) {
	resp, err := p.control.Drain(ctx, &pluginv1.DrainRequest{})
	if err != nil {
		return 0, fmt.Errorf("drain: %w", err)
	}
	return int(resp.GetRemaining()), nil
}

// Configure adds a generation with this one upstream, whose values are as a
// user would write them: "30s", "32KiB", a nested map for a block, a slice of
// maps for a repeated one. Error diagnostics fail the test. The same name and
// values share the plugin's instance with earlier generations.
func (p *Plugin) Configure(t testing.TB, name string, values map[string]any) *Upstream {
	t.Helper()
	u, ds := p.configure(t, name, values)
	for _, d := range ds {
		if !d.Warning {
			t.Errorf("configure upstream %q: %v: %s (%s)", name, d.Path, d.Summary, d.Detail)
		}
	}
	if u == nil {
		t.FailNow()
	}
	return u
}

// TryConfigure is Configure for values that may be wrong: it returns all
// diagnostics, warnings too, and keeps nothing.
func (p *Plugin) TryConfigure(t testing.TB, name string, values map[string]any) []sdk.Diagnostic {
	t.Helper()
	u, ds := p.configure(t, name, values)
	if u != nil {
		u.Release(t)
	}
	return ds
}

func (p *Plugin) configure(t testing.TB, name string, values map[string]any) (*Upstream, []sdk.Diagnostic) {
	t.Helper()
	up, err := wireUpstream(p.schema, name, values)
	if err != nil {
		t.Fatalf("configure upstream %q: %v", name, err)
	}
	p.mu.Lock()
	p.generation++
	generation := p.generation
	p.mu.Unlock()
	ctx, cancel := context.WithTimeout(t.Context(), callTimeout)
	defer cancel()
	resp, err := p.control.Configure(ctx, &pluginv1.ConfigureRequest{Generation: generation, Upstreams: []*pluginv1.Upstream{up}})
	if err != nil {
		t.Fatalf("configure upstream %q: %v", name, err)
	}
	ds, failed := diagnostics(resp.GetDiagnostics())
	if failed {
		return nil, ds
	}
	return &Upstream{p: p, generation: generation, name: name, hash: up.GetConfigHash()}, ds
}

// Validate checks values as "tunneld validate" does, without side effects. It leaves
// out what the plugin notes (sdk.Noter).
func (p *Plugin) Validate(t testing.TB, name string, values map[string]any) []sdk.Diagnostic {
	t.Helper()
	up, err := wireUpstream(p.schema, name, values)
	if err != nil {
		t.Fatalf("validate upstream %q: %v", name, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), callTimeout)
	defer cancel()
	resp, err := p.control.ValidateConfig(ctx, &pluginv1.ValidateConfigRequest{Upstream: up})
	if err != nil {
		t.Fatalf("validate upstream %q: %v", name, err)
	}
	ds, _ := diagnostics(resp.GetDiagnostics())
	return ds
}
