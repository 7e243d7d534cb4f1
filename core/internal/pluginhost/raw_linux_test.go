package pluginhost

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	goplugin "github.com/hashicorp/go-plugin"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tunneld/tunneld/internal/pluginwire"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// rawName is a plugin without the SDK, which breaks the protocol as it is told:
// by RAW_MODE for the process, and by the target's name for a dial.
const rawName = "raw"

// raw is its services.
type raw struct {
	pluginv1.UnimplementedPluginServiceServer
	pluginv1.UnimplementedTunnelServiceServer
	goplugin.NetRPCUnsupportedPlugin
	mode    string
	channel *pluginwire.Channel

	mu          sync.Mutex
	generations map[uint64]bool
	last        net.Conn // the plugin's end of the last relay
}

// serveRaw runs the plugin.
func serveRaw() int {
	mode := os.Getenv("RAW_MODE")
	switch mode {
	case "no handshake":
		fmt.Fprintln(os.Stderr, "waiting for nothing")
		select {}
	case "exit":
		fmt.Fprintln(os.Stderr, "cannot open the frobnicator")
		return 7
	case "print first":
		fmt.Fprintln(os.Stderr, "and this is my stderr")
		fmt.Println("hello, I am a plugin")
		time.Sleep(patience)
	case "print without end":
		for {
			_, _ = os.Stdout.Write(bytes.Repeat([]byte{'x'}, 4096))
		}
	case "tcp":
		fmt.Println("1|1|tcp|127.0.0.1:1|grpc")
		time.Sleep(patience)
	case "netrpc":
		fmt.Println("1|1|unix|/nowhere|netrpc")
		time.Sleep(patience)
	case "handshake and exit":
		fmt.Println("1|1|unix|" + os.Getenv("PLUGIN_UNIX_SOCKET_DIR") + "/none|grpc")
		return 9
	case "handshake and silence":
		ln, err := net.Listen("unix", os.Getenv("PLUGIN_UNIX_SOCKET_DIR")+"/silent")
		if err != nil {
			return 1
		}
		fmt.Println("1|1|unix|" + ln.Addr().String() + "|grpc")
		time.Sleep(patience)
	case "grandchild", "escaped grandchild":
		if err := startSleeper(mode == "escaped grandchild"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	case "hostile":
		sayHostile()
	case "deaf to SIGTERM":
		signal.Ignore(syscall.SIGTERM)
	case "stdin":
		b, err := io.ReadAll(os.Stdin)
		fmt.Fprintf(os.Stderr, "stdin: %d bytes, %v\n", len(b), err)
	case "garbage":
		fmt.Fprintln(os.Stderr, `{"@message":1}`)
		fmt.Fprintln(os.Stderr, `{"@message":"x","@level":{}}`)
		fmt.Fprintln(os.Stderr, `{"level":"INFO","msg":7}`)
		fmt.Fprintln(os.Stderr, `{`)
		fmt.Fprint(os.Stderr, "\x00\xff\x1b[31m\r\n")
		fmt.Fprintln(os.Stderr, strings.Repeat("long ", 1<<16))
		for i := range 10_000 {
			fmt.Fprintln(os.Stderr, "flood", i)
		}
		fmt.Fprintln(os.Stderr, `{"time":"2026-01-01T00:00:00Z","level":"ERROR","msg":"after the flood","upstream":"u","n":3,"g":{"a":true},"l":[1,2],"plugin":"forged"}`)
	}
	channel, err := pluginwire.Inherit(3)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	r := &raw{mode: mode, channel: channel, generations: map[uint64]bool{}}
	go r.lifeline()
	version := uint(pluginwire.ProtocolVersion)
	if mode == "version 2" {
		version = 2
	}
	goplugin.Serve(&goplugin.ServeConfig{
		HandshakeConfig: goplugin.HandshakeConfig{
			ProtocolVersion:  version,
			MagicCookieKey:   pluginwire.MagicCookieKey,
			MagicCookieValue: pluginwire.MagicCookieValue,
		},
		Plugins:    goplugin.PluginSet{pluginwire.ServiceName: r},
		GRPCServer: goplugin.DefaultGRPCServer,
	})
	return 0
}

// lifeline ends the process with the daemon.
func (r *raw) lifeline() {
	if r.mode == "deaf channel" {
		return
	}
	for {
		if _, err := r.channel.Receive(); errors.Is(err, io.EOF) {
			os.Exit(0)
		} else if err != nil {
			return
		}
	}
}

// startSleeper leaves a process behind that holds this one's stderr and
// channel.
func startSleeper(escape bool) error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(exe, "plugin", "serve", "sleeper")
	cmd.Stderr = os.Stderr
	cmd.ExtraFiles = []*os.File{os.NewFile(3, "channel")}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: escape}
	if err := cmd.Start(); err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "grandchild %d\n", cmd.Process.Pid)
	return nil
}

// sleep is the grandchild.
func sleep() int {
	time.Sleep(10 * patience)
	return 0
}

func (r *raw) GRPCServer(_ *goplugin.GRPCBroker, s *grpc.Server) error {
	pluginv1.RegisterPluginServiceServer(s, r)
	pluginv1.RegisterTunnelServiceServer(s, r)
	return nil
}

func (r *raw) GRPCClient(context.Context, *goplugin.GRPCBroker, *grpc.ClientConn) (any, error) {
	return nil, errors.New("not here")
}

func (r *raw) GetInfo(_ context.Context, req *pluginv1.GetInfoRequest) (*pluginv1.GetInfoResponse, error) {
	name := rawName
	var paths []pluginv1.DataPath // none are named
	switch r.mode {
	case "stream only":
		paths = []pluginv1.DataPath{pluginv1.DataPath_DATA_PATH_STREAM, 99}
	case "stream too":
		paths = []pluginv1.DataPath{pluginv1.DataPath_DATA_PATH_STREAM, pluginv1.DataPath_DATA_PATH_RELAY}
	case "other name":
		name = "somebody\nelse"
	case "dies when asked":
		os.Exit(11)
	}
	info := &pluginv1.GetInfoResponse{Name: name, Version: "0.1 for " + req.GetCoreVersion(), DataPaths: paths}
	if r.mode == "hostile" {
		info.Version, info.Summary, info.Capabilities = hostile, hostile, []string{hostile}
	}
	return info, nil
}

func (r *raw) GetSchema(context.Context, *pluginv1.GetSchemaRequest) (*pluginv1.GetSchemaResponse, error) {
	fmt.Println("printed to stdout after the handshake")
	b := &pluginv1.Block{Doc: "raw"}
	if r.mode == "hostile" {
		b = hostileSchema()
	}
	return &pluginv1.GetSchemaResponse{Upstream: b}, nil
}

func (r *raw) Configure(ctx context.Context, req *pluginv1.ConfigureRequest) (*pluginv1.ConfigureResponse, error) {
	switch values := string(req.GetUpstreams()[0].GetConfigJson()); values {
	case `"refuse"`:
		return &pluginv1.ConfigureResponse{Diagnostics: []*pluginv1.Diagnostic{{Severity: pluginv1.Severity_SEVERITY_ERROR, Summary: "no"}}}, nil
	case `"refuse the second time"`, `"fail the second time"`, `"die the second time"`:
		marker := os.Getenv("RAW_MARKER")
		if _, err := os.Stat(marker); err == nil {
			switch {
			case strings.Contains(values, "fail"):
				return nil, status.Error(codes.Internal, "not again")
			case strings.Contains(values, "die"):
				// Go-plugin has redirected os.Stderr.
				_, _ = syscall.Write(2, []byte("cannot be configured twice\n"))
				syscall.Exit(13) // at once, also with the race detector
			}
			return &pluginv1.ConfigureResponse{Diagnostics: []*pluginv1.Diagnostic{{Severity: pluginv1.Severity_SEVERITY_ERROR, Upstream: "u", Summary: "not again"}}}, nil
		}
		if err := os.WriteFile(marker, nil, 0o600); err != nil {
			return nil, err
		}
	case `"hang"`:
		<-ctx.Done()
		return nil, ctx.Err()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.generations[req.GetGeneration()] = true
	return &pluginv1.ConfigureResponse{}, nil
}

func (r *raw) Release(_ context.Context, req *pluginv1.ReleaseRequest) (*pluginv1.ReleaseResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.generations, req.GetGeneration())
	return &pluginv1.ReleaseResponse{}, nil
}

func (r *raw) Drain(context.Context, *pluginv1.DrainRequest) (*pluginv1.DrainResponse, error) {
	return &pluginv1.DrainResponse{Remaining: 3}, nil
}

// Dial does what the target's name says; its port is an echo server's.
func (r *raw) Dial(ctx context.Context, req *pluginv1.DialRequest) (*pluginv1.DialResponse, error) {
	r.mu.Lock()
	known := r.generations[req.GetGeneration()]
	r.mu.Unlock()
	if !known {
		return nil, status.Errorf(codes.NotFound, "generation %d is not known", req.GetGeneration())
	}
	token := req.GetToken()
	connect := func() *net.TCPConn {
		c, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(req.GetTarget().GetPort()))))
		if err != nil {
			panic(err)
		}
		return c.(*net.TCPConn)
	}
	direct, relay := pluginv1.DataPath_DATA_PATH_DIRECT, pluginv1.DataPath_DATA_PATH_RELAY
	switch req.GetTarget().GetHost() {
	case "descriptor first":
		r.pass(token, pluginwire.PathDirect, connect())
		time.Sleep(50 * time.Millisecond)
	case "answer first":
		go func() {
			time.Sleep(50 * time.Millisecond)
			r.pass(token, pluginwire.PathDirect, connect())
		}()
	case "no descriptor":
	case "no answer":
		r.pass(token, pluginwire.PathDirect, connect())
		<-ctx.Done()
		return nil, ctx.Err()
	case "twice":
		r.pass(token, pluginwire.PathDirect, connect())
		r.pass(token, pluginwire.PathDirect, connect())
	case "unclaimed relay":
		near, far, err := pluginwire.RelayPair()
		if err != nil {
			return nil, err
		}
		r.keep(near)
		r.pass(token+1_000_000, pluginwire.PathRelay, far)
		r.pass(token, pluginwire.PathDirect, connect())
	case "datagram":
		r.passNew(token, pluginwire.PathDirect, unix.AF_INET, unix.SOCK_DGRAM)
	case "unconnected":
		r.passNew(token, pluginwire.PathDirect, unix.AF_INET, unix.SOCK_STREAM)
	case "netlink":
		r.passNew(token, pluginwire.PathDirect, unix.AF_NETLINK, unix.SOCK_RAW)
	case "listening":
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		r.pass(token, pluginwire.PathDirect, ln.(*net.TCPListener))
	case "pipe":
		_, w, err := os.Pipe()
		if err != nil {
			return nil, err
		}
		r.pass(token, pluginwire.PathDirect, w)
	case "unix":
		near, far, err := pluginwire.RelayPair()
		if err != nil {
			return nil, err
		}
		r.keep(near)
		r.pass(token, pluginwire.PathDirect, far)
	case "relay over tcp":
		r.pass(token, pluginwire.PathRelay, connect())
		return handoff(token, relay), nil
	case "other path":
		r.pass(token, pluginwire.PathDirect, connect())
		return handoff(token, relay), nil
	case "other token":
		r.pass(token, pluginwire.PathDirect, connect())
		return handoff(token+1, direct), nil
	case "unknown path":
		r.pass(token, pluginwire.PathDirect, connect())
		return handoff(token, 77), nil
	case "too much ahead":
		r.pass(token, pluginwire.PathDirect, connect())
		h := handoff(token, direct)
		h.GetHandoff().Prefetched = make([]byte, pluginwire.MaxPrefetched+1)
		return h, nil
	case "too large":
		h := handoff(token, direct)
		h.GetHandoff().Prefetched = make([]byte, pluginwire.MaxMessage)
		return h, nil
	case "stream":
		return &pluginv1.DialResponse{Result: &pluginv1.DialResponse_Stream{Stream: &pluginv1.StreamHandle{Token: token}}}, nil
	case "nothing":
		return &pluginv1.DialResponse{}, nil
	case "relay":
		near, far, err := pluginwire.RelayPair()
		if err != nil {
			return nil, err
		}
		r.keep(near)
		r.pass(token, pluginwire.PathRelay, far)
		return handoff(token, relay), nil
	case "close the last":
		r.last.Close()
		return nil, status.Error(codes.Aborted, "closed")
	case "bad records":
		_ = r.channel.Send(pluginwire.Record{Kind: pluginwire.Abort, Token: token}, nil)
		_ = r.channel.Send(pluginwire.Record{Kind: pluginwire.End, Token: 999, Status: pluginwire.StatusClean}, nil)
		_ = r.channel.Send(pluginwire.Record{Kind: 9, Token: token}, nil)
		_, _ = unix.Write(3, []byte("short"))
		_, _ = unix.Write(3, bytes.Repeat([]byte{1}, 300))
		r.pass(token, pluginwire.PathDirect, connect())
	case "close the channel":
		_ = r.channel.Close()
		_ = unix.Shutdown(3, unix.SHUT_RDWR)
		<-ctx.Done()
		return nil, ctx.Err()
	case "hang":
		<-ctx.Done()
		return nil, ctx.Err()
	case "die":
		// As Go's runtime does it: past what go-plugin made of os.Stderr.
		_, _ = unix.Write(2, []byte("panic: the raw plugin dies\n"))
		os.Exit(13)
	case "error":
		return &pluginv1.DialResponse{Result: &pluginv1.DialResponse_Error{Error: &pluginv1.DialError{
			Stage:      pluginv1.Stage_STAGE_REQUEST,
			Reason:     pluginv1.Reason_REASON_NOT_FOUND,
			Message:    "no such\nhost\x1b",
			Hint:       strings.Repeat("h", 3000),
			RetryAfter: durationpb.New(time.Minute),
			Stages:     []*pluginv1.StageTime{{Stage: pluginv1.Stage_STAGE_CONNECT, Duration: durationpb.New(time.Second)}},
		}}}, nil
	case "strange error":
		return &pluginv1.DialResponse{Result: &pluginv1.DialResponse_Error{Error: &pluginv1.DialError{
			Stage:      99,
			Reason:     98,
			RetryAfter: durationpb.New(-time.Minute),
			Stages:     make([]*pluginv1.StageTime, 1000),
		}}}, nil
	case "hostile":
		return &pluginv1.DialResponse{Result: &pluginv1.DialResponse_Error{Error: &pluginv1.DialError{Message: hostile, Hint: hostile}}}, nil
	case "hostile failure":
		return nil, status.Error(codes.Internal, hostile)
	case "hostile end":
		near, far, err := pluginwire.RelayPair()
		if err != nil {
			return nil, err
		}
		r.keep(near)
		r.pass(token, pluginwire.PathRelay, far)
		if err := r.channel.Send(pluginwire.Record{Kind: pluginwire.End, Token: token, Status: pluginwire.StatusError, Text: hostile}, nil); err != nil {
			return nil, err
		}
		return handoff(token, relay), nil
	case "internal":
		return nil, status.Error(codes.Internal, "out of luck")
	default:
		return nil, status.Errorf(codes.Unimplemented, "target %q", req.GetTarget().GetHost())
	}
	return handoff(token, direct), nil
}

func handoff(token uint64, path pluginv1.DataPath) *pluginv1.DialResponse {
	return &pluginv1.DialResponse{Result: &pluginv1.DialResponse_Handoff{Handoff: &pluginv1.Handoff{Token: token, Path: path}}}
}

// keep holds the plugin's end of a relay.
func (r *raw) keep(c net.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last = c
}

type passable interface {
	syscall.Conn
	Close() error
}

// pass sends a descriptor and closes the plugin's copy.
func (r *raw) pass(token uint64, path uint8, c passable) {
	if err := r.channel.Send(pluginwire.Record{Kind: pluginwire.Handoff, Token: token, Path: path}, c); err != nil {
		fmt.Fprintln(os.Stderr, "pass:", err)
	}
	_ = c.Close()
}

// passNew sends a fresh socket.
func (r *raw) passNew(token uint64, path uint8, family, typ int) {
	fd, err := unix.Socket(family, typ|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		panic(err)
	}
	r.pass(token, path, os.NewFile(uintptr(fd), "socket"))
}
