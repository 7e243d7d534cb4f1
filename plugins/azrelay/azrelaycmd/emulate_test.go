package azrelaycmd

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"go.uber.org/goleak"

	"github.com/tunneld/tunneld/internal/cmdtest"
	"github.com/tunneld/tunneld/internal/nettest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var endpoint = regexp.MustCompile(`(?m)^  endpoint +=  ?"(ws://)?([0-9.:]+)"$`)

// emulate runs the command and returns where it listens.
func emulate(t *testing.T, args ...string) (*cmdtest.Emulator, string) {
	t.Helper()
	e := cmdtest.Start(t, Emulate(), append([]string{"--address", "127.0.0.1:0"}, args...)...)
	m := endpoint.FindStringSubmatch(e.Out)
	if m == nil {
		t.Fatalf("no endpoint in %s", e.Out)
	}
	return e, m[2]
}

func keyFile(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, []byte("a-key=\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// sender is a WebSocket through the hybrid connection.
type sender struct {
	net.Conn
	r *bufio.Reader
	t *testing.T
}

func connect(t *testing.T, address string) (sender, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), cmdtest.Patience)
	defer cancel()
	c, r, _, err := ws.Dialer{}.Dial(ctx, "ws://"+address+"/$hc/demo?sb-hc-action=connect")
	if err != nil {
		return sender{}, err
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(cmdtest.Patience))
	if r == nil {
		r = bufio.NewReader(c)
	}
	return sender{c, r, t}, nil
}

func mustConnect(t *testing.T, address string) sender {
	t.Helper()
	s, err := connect(t, address)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (s sender) send(f ws.Frame) {
	s.t.Helper()
	if err := ws.WriteFrame(s, ws.MaskFrame(f)); err != nil {
		s.t.Fatal(err)
	}
}

func (s sender) read() (ws.Frame, error) {
	h, err := ws.ReadHeader(s.r)
	if err != nil {
		return ws.Frame{}, err
	}
	if h.Length > 64<<10 {
		s.t.Fatalf("a frame of %d bytes", h.Length)
	}
	f := ws.Frame{Header: h, Payload: make([]byte, h.Length)}
	_, err = io.ReadFull(s.r, f.Payload)
	return f, err
}

// end returns how the connection ends, after whatever else comes.
func (s sender) end() error {
	for {
		if _, err := s.read(); err != nil {
			return err
		}
	}
}

func TestForward(t *testing.T) {
	e, addr := emulate(t, "--anonymous", "--forward", nettest.Serve(t, nettest.Echo))
	s := mustConnect(t, addr)
	s.send(ws.NewBinaryFrame([]byte("hello")))
	if f, err := s.read(); err != nil || string(f.Payload) != "hello" {
		t.Errorf("%q, %v", f.Payload, err)
	}
	s.send(ws.NewPingFrame([]byte("p")))
	if f, err := s.read(); err != nil || f.Header.OpCode != ws.OpPong {
		t.Errorf("%v, %v", f.Header, err)
	}
	want := fmt.Sprintf("upstream \"azrelay\" \"emulated\" {\n  namespace         = \"127.0.0.1\"\n  endpoint          = \"ws://%s\"\n  hybrid_connection = \"demo\"\n}\n", addr)
	if e.Out != want {
		t.Errorf("%s", e.Out)
	}
	if log := e.Stop(t); !strings.Contains(log, "action=connect path=demo") {
		t.Errorf("logged %s", log)
	}
	if again := cmdtest.Start(t, Emulate(), "--address", addr, "--anonymous", "--forward", "127.0.0.1:1"); again.Out != e.Out {
		t.Errorf("%s, then %s", e.Out, again.Out)
	}
	cmdtest.Fails(t, Emulate(), "choose another port", "--address", addr, "--anonymous", "--forward", "127.0.0.1:1")
}

func TestPaste(t *testing.T) {
	key, ca := keyFile(t), filepath.Join(t.TempDir(), "ca.pem")
	e, addr := emulate(t, "--key-file", key, "--key-name", "send", "--namespace", "n.servicebus.windows.net",
		"--hybrid-connection", "hc1", "--tls-ca-file", ca, "--bridge", "1=127.0.0.1:1")
	want := fmt.Sprintf(`upstream "azrelay" "emulated" {
  namespace         = "n.servicebus.windows.net"
  endpoint          = %q
  hybrid_connection = "hc1"
  key_name          = "send"
  key               = trimspace(file(%q))
  framing           = "azbridge"
  tls {
    ca_file = %q
  }
}
`, addr, key, ca)
	if e.Out != want {
		t.Errorf("%s, want %s", e.Out, want)
	}
}

// azbridge's preamble: version 1.0 and the port's name, which is answered in kind; a port
// for datagrams has no stream.
func TestBridge(t *testing.T) {
	echo := nettest.Serve(t, nettest.Echo)
	_, addr := emulate(t, "--anonymous", "--bridge", "1=127.0.0.1:1", "--bridge", "db="+echo, "--bridge-udp", "dns")
	s := mustConnect(t, addr)
	s.send(ws.NewBinaryFrame([]byte("\x01\x00\x00\x02db")))
	if f, err := s.read(); err != nil || string(f.Payload) != "\x01\x00\x00" {
		t.Errorf("% x, %v", f.Payload, err)
	}
	s.send(ws.NewBinaryFrame([]byte("hello")))
	if f, err := s.read(); err != nil || string(f.Payload) != "hello" {
		t.Errorf("%q, %v", f.Payload, err)
	}
	s = mustConnect(t, addr)
	s.send(ws.NewBinaryFrame([]byte("\x01\x00\x00\x03dns")))
	if f, err := s.read(); err != nil || string(f.Payload) != "\x00\x00\x01" {
		t.Errorf("a stream to a port for datagrams: % x, %v", f.Payload, err)
	}
}

// TestFaults: each, as a sender sees it.
func TestFaults(t *testing.T) {
	echo := nettest.Serve(t, nettest.Echo)
	run := func(t *testing.T, args ...string) string {
		t.Helper()
		_, addr := emulate(t, append(args, "--anonymous", "--forward", echo)...)
		return addr
	}
	for _, tt := range []struct{ args, want string }{
		{"--fault-status 404 --fault-reason gone", "404"},
		{"--fault-status 503", "503"},
		{"--fault-bad-accept", "Sec-WebSocket-Accept"},
		{"--fault-extension", "unexpected extensions"},
	} {
		if _, err := connect(t, run(t, strings.Fields(tt.args)...)); err == nil || !strings.Contains(strings.ToLower(err.Error()), strings.ToLower(tt.want)) {
			t.Errorf("%s: %v", tt.args, err)
		}
	}
	c := cmdtest.Dial(t, run(t, "--fault-status", "401", "--fault-reason", "No more"))
	c.Say(handshake("connect")+"\r\n", "HTTP/1.1 401 No more. TrackingId:")
	c = cmdtest.Dial(t, run(t, "--fault-silent"))
	c.Say(handshake("connect")+"\r\n", "")
	c.Ends(cmdtest.Silent)

	s := mustConnect(t, run(t, "--fault-drop-pings"))
	s.send(ws.NewPingFrame([]byte("p")))
	s.send(ws.NewBinaryFrame([]byte("hello")))
	if f, err := s.read(); err != nil || f.Header.OpCode != ws.OpBinary {
		t.Errorf("%v, %v", f.Header, err)
	}
	s = mustConnect(t, run(t, "--fault-cut-after", "3"))
	s.send(ws.NewBinaryFrame([]byte("hello")))
	if err := s.end(); !errors.Is(err, syscall.ECONNRESET) {
		t.Error(err)
	}
	s = mustConnect(t, run(t, "--fault-cut-after", "3", "--fault-cut-fin"))
	s.send(ws.NewBinaryFrame([]byte("hello")))
	if err := s.end(); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
	s = mustConnect(t, run(t, "--fault-close-after", "3", "--fault-close-code", "1001"))
	s.send(ws.NewBinaryFrame([]byte("hello")))
	var f ws.Frame
	var err error
	for f.Header.OpCode != ws.OpClose && err == nil {
		f, err = s.read()
	}
	if code, _ := ws.ParseCloseFrameData(f.Payload); err != nil || code != 1001 {
		t.Errorf("%v, %v", code, err)
	}
}

func handshake(action string) string {
	return "GET /$hc/demo?sb-hc-action=" + action + " HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
}

func TestUsage(t *testing.T) {
	for _, tt := range []struct {
		want string
		args []string
	}{
		{"--key-file, or --anonymous", nil},
		{"--key-file, --forward or --bridge", []string{"--anonymous"}},
		{"--forward or --bridge", []string{"--anonymous", "--forward", "127.0.0.1:1", "--bridge", "1=127.0.0.1:1"}},
		{"read key", []string{"--key-file", filepath.Join(t.TempDir(), "none")}},
		{"from 400 to 599", []string{"--anonymous", "--forward", "127.0.0.1:1", "--fault-status", "200"}},
		{"this machine alone", []string{"--anonymous", "--forward", "127.0.0.1:1", "--address", "0.0.0.0:0"}},
		{`--forward: "nonsense" is not host:port`, []string{"--anonymous", "--forward", "nonsense"}},
		{`--bridge: "nonsense" is not host:port`, []string{"--anonymous", "--bridge", "1=nonsense"}},
	} {
		cmdtest.Fails(t, Emulate(), tt.want, append([]string{"--address", "127.0.0.1:0"}, tt.args...)...)
	}
}

// Every option of the emulator, and every fault, has a flag. The clock has none.
func TestEveryOption(t *testing.T) {
	e, cmd := newEmulation()
	cmdtest.Start(t, cmd, "--address", "127.0.0.1:0", "--tls-ca-file", filepath.Join(t.TempDir(), "ca.pem"),
		"--namespace", "n", "--key-file", keyFile(t), "--forward", "127.0.0.1:1", "--accept-timeout", "1s",
		"--fault-status", "500", "--fault-bad-accept", "--fault-extension", "--fault-silent", "--fault-drop-pings",
		"--fault-cut-after", "1", "--fault-cut-fin", "--fault-close-after", "1")
	if unset := cmdtest.Unset(e.options); fmt.Sprint(unset) != "[Now]" {
		t.Errorf("no flag sets %v", unset)
	}
	e, cmd = newEmulation()
	cmdtest.Start(t, cmd, "--address", "127.0.0.1:0", "--anonymous", "--bridge", "1=127.0.0.1:1", "--bridge-udp", "2")
	if f := e.options.Forward[0]; len(f.Ports) != 1 || len(f.UDPPorts) != 1 {
		t.Errorf("%+v", f)
	}
}

// A listener that does not accept lets its sender wait for so long.
func TestAcceptTimeout(t *testing.T) {
	key := keyFile(t)
	_, addr := emulate(t, "--anonymous", "--key-file", key, "--accept-timeout", "10ms")
	var token strings.Builder
	cmd := Command()
	cmd.SetArgs([]string{"token", "--namespace", "127.0.0.1", "--hybrid-connection", "demo", "--key-name", "RootManageSharedAccessKey", "--key-file", key})
	cmd.SetOut(&token)
	cmd.SetErr(io.Discard)
	if err := cmd.ExecuteContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	listener := cmdtest.Dial(t, addr)
	listener.Say(handshake("listen")+"ServiceBusAuthorization: "+token.String()[:len(token.String())-1]+"\r\n\r\n", "HTTP/1.1 101 ")
	_, err := connect(t, addr)
	if err == nil || !strings.Contains(err.Error(), fmt.Sprint(http.StatusGatewayTimeout)) {
		t.Errorf("%v", err)
	}
}
