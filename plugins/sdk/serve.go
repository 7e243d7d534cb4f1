package sdk

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"github.com/tunneld/tunneld/internal/nodump"
	"github.com/tunneld/tunneld/internal/pluginwire"
	"github.com/tunneld/tunneld/plugins/sdk/internal/serve"
)

// stopTime bounds what a plugin does after it was told to stop, or after the
// daemon is gone.
const stopTime = 2 * time.Second

// Serve runs the plugin until the daemon ends it, and returns the process's exit status:
// 0, or 1 where it could not be served, which the log explains. Call it once, first thing
// in main, since anything that is printed before it breaks the start. Run by hand the
// program says what it is.
//
// It takes the process over: os.Stdout and os.Stderr, whose lines appear in the daemon's
// log as warnings; the defaults of packages slog and log, which write to that log; and the
// signals SIGINT and SIGHUP, which it ignores, since a terminal sends them to the daemon's
// plugins as well. SIGPIPE does not end the plugin. SIGTERM, and the end of the daemon,
// abort the relay tunnels and end Serve within two seconds.
//
// On Linux it also keeps other processes of the same user from tracing this one and
// from reading its memory and environment, and it forbids core files: debuggers need
// TUNNELD_DUMPABLE=1 in the plugin's environment, or root. A test binary stays open.
func Serve(p Plugin) int {
	if os.Getenv(pluginwire.MagicCookieKey) != pluginwire.MagicCookieValue {
		fmt.Fprintf(os.Stderr, "This program is the plugin %q of tunneld, which starts it.\nName it in the command of a plugin block, or put it into the plugin_dir: see https://github.com/tunneld/tunneld.\n", p.Name)
		return 1
	}
	open, protectErr := nodump.Protect()
	signal.Ignore(syscall.SIGINT, syscall.SIGHUP)
	// What is written to a standard error that nobody reads any more, as when the
	// daemon has died, fails; it does not end the process before its tunnels are
	// aborted. Ignored, the signal would be so in what the plugin starts as well.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	defer signal.Stop(term)

	stderr, err := saveStderr()
	if err != nil {
		fmt.Fprintf(os.Stderr, "plugin %q: %v\n", p.Name, err)
		return 1
	}
	log := newLogger(stderr, os.Getenv(pluginwire.EnvLogLevel))
	slog.SetDefault(log)
	if open {
		log.Warn(nodump.Warning)
	}
	if protectErr != nil {
		log.Warn("the plugin's memory is not protected", "err", protectErr)
	}
	built, err := p.build()
	if err != nil {
		log.Error("the plugin cannot be served", "err", err)
		return 1
	}
	channel, err := inheritChannel()
	if err != nil {
		log.Error("the plugin cannot be served", "err", err)
		return 1
	}
	srv := serve.New(built, serve.Options{Channel: channel, Log: log})
	return run(srv, log, term)
}

// run serves until something ends it.
func run(srv *serve.Server, log *slog.Logger, term <-chan os.Signal) int {
	prints := newPrintCapture(log)
	var rpc *grpc.Server
	made := make(chan struct{})
	served := make(chan struct{})
	go func() {
		defer close(served)
		plugin.Serve(&plugin.ServeConfig{
			HandshakeConfig: plugin.HandshakeConfig{
				ProtocolVersion:  pluginwire.ProtocolVersion,
				MagicCookieKey:   pluginwire.MagicCookieKey,
				MagicCookieValue: pluginwire.MagicCookieValue,
			},
			Plugins: plugin.PluginSet{pluginwire.ServiceName: &services{srv: srv}},
			GRPCServer: func(opts []grpc.ServerOption) *grpc.Server {
				opts = append(opts, grpc.ChainUnaryInterceptor(prints.unary), grpc.ChainStreamInterceptor(prints.stream))
				rpc = grpc.NewServer(append(opts, serve.ServerOptions(log)...)...)
				close(made)
				return rpc
			},
			Logger: hclog.New(&hclog.LoggerOptions{
				Output:      &lineLogger{log: log, msg: "go-plugin"},
				Level:       hclog.Warn,
				DisableTime: true,
			}),
		})
	}()

	status := 0
	select {
	case <-served:
		if rpc == nil {
			status = 1 // go-plugin has logged why
		}
	case <-term:
		log.Debug("told to stop")
	case <-srv.Gone():
		log.Debug("the daemon is gone")
	}
	ctx, cancel := context.WithTimeout(context.Background(), stopTime)
	defer cancel()
	if err := srv.Stop(ctx); err != nil {
		log.Warn("the plugin did not stop in time", "err", err)
	}
	select {
	case <-made:
		go rpc.Stop()
		select {
		case <-served:
		case <-ctx.Done():
		}
	default:
	}
	prints.close(ctx)
	return status
}

// services registers the two services with go-plugin's server.
type services struct {
	plugin.NetRPCUnsupportedPlugin
	srv *serve.Server
}

func (s *services) GRPCServer(_ *plugin.GRPCBroker, r *grpc.Server) error {
	s.srv.Register(r)
	return nil
}

func (s *services) GRPCClient(context.Context, *plugin.GRPCBroker, *grpc.ClientConn) (any, error) {
	return nil, fmt.Errorf("package sdk is the plugin's side")
}

// inheritChannel opens the descriptor channel and removes its number from the
// environment, so that no process started from here believes in it.
func inheritChannel() (*pluginwire.Channel, error) {
	text := os.Getenv(pluginwire.EnvChannel)
	fd, err := strconv.ParseUint(text, 10, 31)
	if err != nil || fd <= 2 {
		return nil, fmt.Errorf("environment: %s=%q is not the number of a descriptor", pluginwire.EnvChannel, text)
	}
	if err := os.Unsetenv(pluginwire.EnvChannel); err != nil {
		return nil, fmt.Errorf("environment: %w", err)
	}
	return pluginwire.Inherit(uintptr(fd))
}

// saveStderr duplicates descriptor 2, which stays the daemon's whatever happens
// to os.Stderr.
func saveStderr() (*os.File, error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	fd, err := syscall.Dup(2)
	if err != nil {
		return nil, fmt.Errorf("save standard error: %w", err)
	}
	syscall.CloseOnExec(fd)
	return os.NewFile(uintptr(fd), "stderr"), nil
}
