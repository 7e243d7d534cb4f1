package sdk_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/tunneld/tunneld/internal/pluginwire"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// process is a plugin in a process of its own, and the least of a daemon: it
// knows nothing but what docs/plugin-protocol.md says.
type process struct {
	t       *testing.T
	cmd     *exec.Cmd
	channel *pluginwire.Channel
	line    string // the handshake's
	conn    *grpc.ClientConn
	control pluginv1.PluginServiceClient
	tunnels pluginv1.TunnelServiceClient
	stderr  bytes.Buffer
	exited  chan struct{}
	state   *os.ProcessState
}

func startProcess(t *testing.T, plugin string, env ...string) *process {
	t.Helper()
	p := launch(t, plugin, env...)
	p.connect()
	return p
}

// connect speaks with a process that was launched.
func (p *process) connect() {
	t := p.t
	t.Helper()
	if p.line == "" {
		<-p.exited
		t.Fatalf("no handshake; stderr: %s", p.stderr.String())
	}
	fields := strings.Split(p.line, "|")
	if len(fields) < 5 || fields[0] != "1" || fields[1] != "1" || fields[2] != "unix" || fields[4] != "grpc" {
		t.Fatalf("handshake is %q", p.line)
	}
	conn, err := grpc.NewClient("unix:"+fields[3], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	p.conn, p.control, p.tunnels = conn, pluginv1.NewPluginServiceClient(conn), pluginv1.NewTunnelServiceClient(conn)
}

// launch starts the process and waits for its first line or its end.
func launch(t *testing.T, plugin string, env ...string) *process {
	t.Helper()
	p := &process{t: t}
	p.launch(plugin, &p.stderr, env...)
	return p
}

// launch is the function of that name with a standard error of the caller's.
func (p *process) launch(plugin string, stderr io.Writer, env ...string) {
	t := p.t
	t.Helper()
	channel, file, err := pluginwire.Pair()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "sdk")
	if err != nil {
		t.Fatal(err)
	}
	p.cmd, p.channel, p.exited = exec.Command(os.Args[0]), channel, make(chan struct{})
	p.cmd.Env = append([]string{
		"PATH=" + os.Getenv("PATH"),
		"GOCOVERDIR=" + dir,
		envServe + "=" + plugin,
		pluginwire.MagicCookieKey + "=" + pluginwire.MagicCookieValue,
		pluginwire.EnvChannel + "=3",
		"PLUGIN_PROTOCOL_VERSIONS=1",
		"PLUGIN_UNIX_SOCKET_DIR=" + dir,
	}, env...)
	p.cmd.ExtraFiles = []*os.File{file}
	p.cmd.Stderr = stderr
	stdout, stdoutW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p.cmd.Stdout = stdoutW
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = file.Close()
	_ = stdoutW.Close()
	go func() {
		defer close(p.exited)
		_ = p.cmd.Wait()
		p.state = p.cmd.ProcessState
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.exited
		_ = stdout.Close()
		_ = channel.Close()
		_ = os.RemoveAll(dir)
	})
	if err := stdout.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	p.line, _ = bufio.NewReader(stdout).ReadString('\n')
	p.line = strings.TrimSpace(p.line)
}

// exit waits for the process's end and returns its status, -1 for a signal.
func (p *process) exit(within time.Duration) int {
	p.t.Helper()
	select {
	case <-p.exited:
	case <-time.After(within):
		p.t.Fatalf("the process runs on after %v; stderr: %s", within, p.stderr.String())
	}
	return p.state.ExitCode()
}

func (p *process) configure(config string) {
	p.t.Helper()
	resp, err := p.control.Configure(p.ctx(), &pluginv1.ConfigureRequest{
		Generation: 1,
		Upstreams:  []*pluginv1.Upstream{{Name: "up", ConfigJson: []byte(config), ConfigHash: "h"}},
	})
	if err != nil || len(resp.GetDiagnostics()) != 0 {
		p.t.Fatalf("configure: %v, %v; stderr: %s", resp, err, p.stderr.String())
	}
}

func (p *process) ctx() context.Context {
	ctx, cancel := context.WithTimeout(p.t.Context(), 20*time.Second)
	p.t.Cleanup(cancel)
	return ctx
}

func (p *process) request(token uint64, target net.Addr) *pluginv1.DialRequest {
	req := &pluginv1.DialRequest{
		Generation:    1,
		Upstream:      "up",
		Target:        &pluginv1.Target{Host: "127.0.0.1", Port: 1},
		Token:         token,
		AcceptedPaths: []pluginv1.DataPath{pluginv1.DataPath_DATA_PATH_DIRECT, pluginv1.DataPath_DATA_PATH_RELAY},
	}
	if a, ok := target.(*net.TCPAddr); ok {
		req.Target.Port = uint32(a.Port)
	}
	return req
}

// dial makes a tunnel and returns both ends of it.
func (p *process) dial(token uint64) (near net.Conn, far *net.TCPConn) {
	p.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		p.t.Fatal(err)
	}
	defer l.Close()
	resp, err := p.tunnels.Dial(p.ctx(), p.request(token, l.Addr()))
	if err != nil || resp.GetHandoff().GetToken() != token {
		p.t.Fatalf("dial: %v, %v", resp, err)
	}
	got, err := p.channel.Receive()
	if err != nil || got.Kind != pluginwire.Handoff || got.Token != token {
		p.t.Fatalf("channel: %+v, %v", got, err)
	}
	f := got.Descriptor.File()
	near, err = net.FileConn(f)
	if err := errors.Join(err, f.Close()); err != nil {
		p.t.Fatal(err)
	}
	c, err := l.Accept()
	if err != nil {
		p.t.Fatal(err)
	}
	for _, c := range []net.Conn{near, c} {
		p.t.Cleanup(func() { _ = c.Close() })
		if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
			p.t.Fatal(err)
		}
	}
	return near, c.(*net.TCPConn)
}

// logged waits for the process's end and returns the log lines with this
// message.
func (p *process) logged(msg string) []map[string]any {
	p.t.Helper()
	<-p.exited
	var found []map[string]any
	for line := range strings.SplitSeq(strings.TrimSpace(p.stderr.String()), "\n") {
		var m map[string]any
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			p.t.Errorf("a log line that is not JSON: %s", line)
			continue
		}
		if m["msg"] == msg {
			found = append(found, m)
		}
	}
	return found
}

func exchange(t *testing.T, a, b net.Conn) {
	t.Helper()
	if _, err := a.Write([]byte("ping")); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 4)
	if _, err := io.ReadFull(b, got); err != nil || string(got) != "ping" {
		t.Fatalf("read %q, %v", got, err)
	}
}

func TestServeByHand(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	// A binary built for coverage complains where it may not write it.
	cmd.Env = []string{envServe + "=direct", "GOCOVERDIR=" + t.TempDir()}
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Errorf("it ended with %v", err)
	}
	if n := strings.Count(string(out), "\n"); n != 2 || !strings.Contains(string(out), `plugin "fixdirect" of tunneld`) {
		t.Errorf("it says %q", out)
	}
}

func TestServeRefuses(t *testing.T) {
	for name, tc := range map[string]struct {
		plugin, env, want string
	}{
		"a struct that is no schema": {"broken", "X=", "no tunneld tag"},
		"no channel":                 {"direct", pluginwire.EnvChannel + "=", "not the number of a descriptor"},
		"a channel that is none":     {"direct", pluginwire.EnvChannel + "=99", "descriptor channel"},
	} {
		t.Run(name, func(t *testing.T) {
			p := launch(t, tc.plugin, tc.env)
			if status := p.exit(10 * time.Second); status != 1 || p.line != "" {
				t.Errorf("it ended with %d after %q", status, p.line)
			}
			lines := p.logged("the plugin cannot be served")
			if len(lines) != 1 || !strings.Contains(fmt.Sprint(lines[0]["err"]), tc.want) {
				t.Errorf("stderr is %s", p.stderr.String())
			}
		})
	}
}

// The direct path outlives the plugin's process; a relay does not, and neither
// end may take that for a clean end.
func TestServeKilled(t *testing.T) {
	t.Run("direct", func(t *testing.T) {
		p := startProcess(t, "direct")
		p.configure("{}")
		near, far := p.dial(7)
		exchange(t, near, far)
		_ = p.cmd.Process.Kill()
		<-p.exited
		exchange(t, near, far)
		exchange(t, far, near)
	})
	t.Run("relay", func(t *testing.T) {
		p := startProcess(t, "relay")
		p.configure("{}")
		near, far := p.dial(7)
		exchange(t, near, far)
		exchange(t, far, near)
		_ = p.cmd.Process.Kill()
		if _, err := near.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("the relay's socket reads %v", err)
		}
		if got, err := p.channel.Receive(); err != io.EOF {
			t.Errorf("the channel reads %+v, %v: no end was announced", got, err)
		}
		if _, err := far.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the far end reads %v, want a reset", err)
		}
	})
}

// The daemon's death ends the plugin, and its relay tunnels with a reset.
func TestServeLifeline(t *testing.T) {
	p := startProcess(t, "relay")
	p.configure("{}")
	near, far := p.dial(7)
	_ = p.channel.Close()
	_ = near.Close()
	if _, err := far.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the far end reads %v, want a reset", err)
	}
	if status := p.exit(5 * time.Second); status != 0 {
		t.Errorf("it ended with %d: %s", status, p.stderr.String())
	}
}

func TestServeSignals(t *testing.T) {
	p := startProcess(t, "relay")
	p.configure("{}")
	near, far := p.dial(7)
	for _, s := range []os.Signal{syscall.SIGINT, syscall.SIGHUP} {
		if err := p.cmd.Process.Signal(s); err != nil {
			t.Fatal(err)
		}
	}
	exchange(t, near, far)
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	got, err := p.channel.Receive()
	if err != nil || got.Kind != pluginwire.End || got.Status != pluginwire.StatusError || got.Token != 7 {
		t.Errorf("the channel reads %+v, %v, want an END with an error", got, err)
	}
	if _, err := far.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the far end reads %v, want a reset", err)
	}
	if status := p.exit(5 * time.Second); status != 0 {
		t.Errorf("it ended with %d: %s", status, p.stderr.String())
	}
}

// What is printed after the handshake is in the log, not in go-plugin's pipes.
func TestServeSurfacesPrints(t *testing.T) {
	p := startProcess(t, "direct", pluginwire.EnvLogLevel+"=debug")
	p.configure(`{"print":"{\"@message\":1}"}`)
	near, far := p.dial(7)
	exchange(t, near, far)
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	p.exit(5 * time.Second)
	streams := map[any]bool{}
	for _, line := range p.logged("printed by the plugin") {
		if line["level"] != "WARN" || line["text"] != `{"@message":1}` || line["time"] == nil {
			t.Errorf("line is %v", line)
		}
		streams[line["stream"]] = true
	}
	if !streams["stdout"] || !streams["stderr"] {
		t.Errorf("stderr is %s", p.stderr.String())
	}
	if started := p.logged("started"); len(started) != 1 || started[0]["upstream"] != "up" || started[0]["level"] != "DEBUG" {
		t.Errorf("the upstream's own log is %v", started)
	}
}

func TestServeIsHealthyAndBounded(t *testing.T) {
	p := startProcess(t, "direct")
	h, err := healthv1.NewHealthClient(p.conn).Check(p.ctx(), &healthv1.HealthCheckRequest{Service: "plugin"})
	if err != nil || h.GetStatus() != healthv1.HealthCheckResponse_SERVING {
		t.Errorf("health: %v, %v", h, err)
	}
	big := &pluginv1.ConfigureRequest{Generation: 1, Upstreams: []*pluginv1.Upstream{{Name: "up", ConfigJson: make([]byte, pluginwire.MaxMessage)}}}
	if _, err := p.control.Configure(p.ctx(), big); err == nil || !strings.Contains(err.Error(), "larger than max") {
		t.Errorf("a message past the bound: %v", err)
	}
	info, err := p.control.GetInfo(p.ctx(), &pluginv1.GetInfoRequest{})
	if err != nil || info.GetName() != "fixdirect" || info.GetVersion() != "1.0.0" {
		t.Errorf("info: %v, %v", info, err)
	}
	schema, err := p.control.GetSchema(p.ctx(), &pluginv1.GetSchemaRequest{})
	if err != nil || len(schema.GetUpstream().GetAttributes()) == 0 {
		t.Errorf("schema: %v, %v", schema, err)
	}
}
