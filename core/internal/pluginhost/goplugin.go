package pluginhost

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os/exec"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"github.com/hashicorp/go-plugin/runner"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tunneld/tunneld/internal/pluginwire"
)

type clientOptions struct {
	dir     string // for the plugin's socket
	log     *slog.Logger
	calls   []grpc.DialOption
	prepare func(cmd *exec.Cmd, socketDir string) error
}

// clientConfig is how go-plugin is used: for its handshake, its gRPC connection
// and the plugin's redirected output. The process is c's.
func clientConfig(c *child, o clientOptions) *goplugin.ClientConfig {
	return &goplugin.ClientConfig{
		HandshakeConfig: goplugin.HandshakeConfig{
			ProtocolVersion:  pluginwire.ProtocolVersion,
			MagicCookieKey:   pluginwire.MagicCookieKey,
			MagicCookieValue: pluginwire.MagicCookieValue,
		},
		Plugins:          goplugin.PluginSet{pluginwire.ServiceName: services{}},
		AllowedProtocols: []goplugin.Protocol{goplugin.ProtocolGRPC},
		SkipHostEnv:      true,
		UnixSocketConfig: &goplugin.UnixSocketConfig{TempDir: o.dir},
		RunnerFunc: func(_ hclog.Logger, cmd *exec.Cmd, socketDir string) (runner.Runner, error) {
			return c, o.prepare(cmd, socketDir)
		},
		SyncStdout: c.out.writer("stdout"),
		SyncStderr: c.out.writer("stderr"),
		Logger:     hclogTo(o.log),
		GRPCDialOptions: append([]grpc.DialOption{
			grpc.WithDefaultCallOptions(
				grpc.MaxCallRecvMsgSize(pluginwire.MaxMessage),
				grpc.MaxCallSendMsgSize(pluginwire.MaxMessage),
			),
			// The socket's path says nothing about where a proxy leads.
			grpc.WithNoProxy(),
			grpc.WithIdleTimeout(0),
			grpc.WithChainStreamInterceptor(tameStreams),
		}, o.calls...),
	}
}

// tameStreams keeps go-plugin's own streams from doing harm. The broker is not
// used. A failure of the output's stream other than Unavailable would make
// go-plugin forget the connection that it has just made, with its goroutines.
func tameStreams(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, streamer grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	switch method {
	case "/plugin.GRPCBroker/StartStream":
		return nil, status.Error(codes.Unimplemented, "tunneld does not use the broker")
	case "/plugin.GRPCStdio/StreamStdio":
		s, err := streamer(ctx, desc, cc, method, opts...)
		if err != nil {
			return nil, status.Error(codes.Unavailable, err.Error())
		}
		return s, nil
	}
	return streamer(ctx, desc, cc, method, opts...)
}

// services is the plugin as go-plugin's map wants it: dispensing it returns the
// connection.
type services struct {
	goplugin.NetRPCUnsupportedPlugin
}

func (services) GRPCServer(*goplugin.GRPCBroker, *grpc.Server) error {
	return errors.New("the daemon serves no plugin")
}

func (services) GRPCClient(_ context.Context, _ *goplugin.GRPCBroker, conn *grpc.ClientConn) (any, error) {
	return conn, nil
}

// connect starts the process and returns its connection. It may hang for as
// long as the process lives.
func connect(client *goplugin.Client) (*grpc.ClientConn, error) {
	protocol, err := client.Client()
	if err != nil {
		return nil, err
	}
	raw, err := protocol.Dispense(pluginwire.ServiceName)
	if err != nil {
		return nil, err
	}
	conn, ok := raw.(*grpc.ClientConn)
	if !ok {
		return nil, errors.New("go-plugin dispensed something other than a connection")
	}
	return conn, nil
}

// hclogTo returns a logger for go-plugin that writes to log. go-plugin's errors and
// warnings are seldom of interest to the user, and the host reports those that are:
// all of them are logged as debug.
func hclogTo(log *slog.Logger) hclog.Logger {
	level := hclog.Off
	if log.Enabled(context.Background(), slog.LevelDebug) {
		level = hclog.Debug
	}
	l := hclog.NewInterceptLogger(&hclog.LoggerOptions{Output: io.Discard, Level: level})
	l.RegisterSink(slogSink{log})
	return l
}

// slogSink is a sink of hclog.
type slogSink struct{ log *slog.Logger }

// Accept logs one line.
func (s slogSink) Accept(_ string, level hclog.Level, msg string, args ...any) {
	if level >= hclog.Debug {
		// What a plugin printed is among them.
		cleaned := make([]any, len(args))
		for i, a := range args {
			cleaned[i] = clean(fmt.Sprint(a), maxText)
		}
		s.log.Debug("go-plugin: "+msg, cleaned...)
	}
}
