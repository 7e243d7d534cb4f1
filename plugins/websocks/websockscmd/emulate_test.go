package websockscmd

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
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

	"go.uber.org/goleak"

	"github.com/tunneld/tunneld/internal/cmdtest"
	"github.com/tunneld/tunneld/internal/nettest"
	"github.com/tunneld/tunneld/plugins/websocks/internal/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// emulate runs the command and returns where it listens.
func emulate(t *testing.T, args ...string) (*cmdtest.Emulator, string) {
	t.Helper()
	e := cmdtest.Start(t, Emulate(), append([]string{"--address", "127.0.0.1:0"}, args...)...)
	return e, address(t, e)
}

var url = regexp.MustCompile(`(?m)^  url +=  ?"wss?://([0-9.:]+)"$`)

func address(t *testing.T, e *cmdtest.Emulator) string {
	t.Helper()
	m := url.FindStringSubmatch(e.Out)
	if m == nil {
		t.Fatalf("no url in %s", e.Out)
	}
	return m[1]
}

const (
	frame    = "\x82\x7f\x7f\xff\xff\xff\xff\xff\xff\xff"
	greeting = "\x05\x01\x00"
	chosen   = "\x05\x00"
	ask      = "\x05\x01\x00\x03\x07db.corp\x15\x38"
	success  = "\x05\x00\x00\x01\x00\x00\x00\x00\x15\x38"
)

func request(header ...string) string {
	return "GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n" +
		"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: socks5\r\n" + strings.Join(append(header, "\r\n"), "\r\n")
}

// upgrade asks for one and returns the answer; what follows is still to be read.
func upgrade(t *testing.T, c cmdtest.Conn, header ...string) (*http.Response, *bufio.Reader) {
	t.Helper()
	if _, err := io.WriteString(c, request(header...)); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(c)
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	return resp, r
}

// upgraded is a conversation that has come that far.
func upgraded(t *testing.T, c cmdtest.Conn, header ...string) cmdtest.Conn {
	t.Helper()
	if resp, _ := upgrade(t, c, header...); resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("status %s", resp.Status)
	}
	return c
}

func TestMap(t *testing.T) {
	echo := nettest.Serve(t, nettest.Echo)
	e, addr := emulate(t, "--map", "db.corp:5432="+echo)
	c := upgraded(t, cmdtest.Dial(t, addr))
	c.Say(frame, frame)
	c.Say(greeting+ask, chosen+success)
	c.Say("hello", "hello")
	c = upgraded(t, cmdtest.Dial(t, addr))
	c.Say(frame+greeting+"\x05\x01\x00\x03\x07no.corp\x15\x38", frame+chosen+"\x05\x02")
	if log := e.Stop(t); !strings.Contains(log, "target=db.corp:5432") || !strings.Contains(log, `answer="reply 02"`) {
		t.Errorf("logged %s", log)
	}
	again := cmdtest.Start(t, Emulate(), "--address", addr)
	if again.Out != e.Out {
		t.Errorf("%s, then %s", e.Out, again.Out)
	}
	cmdtest.Fails(t, Emulate(), "choose another port", "--address", addr)
}

func TestUser(t *testing.T) {
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte("open-sesame\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	e, addr := emulate(t, "--user", "alice="+file)
	if want := fmt.Sprintf("  username = \"alice\"\n  password = trimspace(file(%q))\n", file); !strings.Contains(e.Out, want) {
		t.Errorf("%s", e.Out)
	}
	login := func(password string) string {
		salted := "alice:" + wire.SaltPassword(password, time.Now())
		return "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(salted))
	}
	for password, status := range map[string]int{"open-sesame": 101, "wrong": 401} {
		if resp, _ := upgrade(t, cmdtest.Dial(t, addr), login(password)); resp.StatusCode != status {
			t.Errorf("%s: %s", password, resp.Status)
		}
	}
	if log := e.Stop(t); strings.Contains(log, "sesame") || !strings.Contains(log, "status=401") {
		t.Errorf("logged %s", log)
	}
	// Its clock ten minutes ahead, the same password is none.
	_, addr = emulate(t, "--user", "alice="+file, "--fault-clock-offset", "10m")
	if resp, _ := upgrade(t, cmdtest.Dial(t, addr), login("open-sesame")); resp.StatusCode != 401 {
		t.Errorf("%s", resp.Status)
	}
}

func TestTLS(t *testing.T) {
	ca := filepath.Join(t.TempDir(), "ca.pem")
	dial := func(t *testing.T, addr string, config *tls.Config) *tls.Conn {
		t.Helper()
		b, err := os.ReadFile(ca)
		if err != nil {
			t.Fatal(err)
		}
		config.RootCAs = x509.NewCertPool()
		config.RootCAs.AppendCertsFromPEM(b)
		c, err := tls.DialWithDialer(&net.Dialer{Timeout: cmdtest.Patience}, "tcp", addr, config)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	t.Run("the original's", func(t *testing.T) {
		e, addr := emulate(t, "--tls-ca-file", ca, "--name", "paas.example")
		if !strings.Contains(e.Out, fmt.Sprintf("  tls {\n    ca_file = %q\n  }\n", ca)) {
			t.Errorf("%s", e.Out)
		}
		c := dial(t, addr, &tls.Config{ServerName: "paas.example"})
		if v := c.ConnectionState().Version; v != tls.VersionTLS12 {
			t.Errorf("version %x", v)
		}
		k := upgraded(t, cmdtest.Talk(t, c))
		k.Say(frame+greeting, frame+chosen)
	})
	t.Run("a gateway's", func(t *testing.T) {
		_, addr := emulate(t, "--tls-ca-file", ca, "--fault-tls13", "--fault-close-notify")
		c := dial(t, addr, &tls.Config{MinVersion: tls.VersionTLS13})
		k := upgraded(t, cmdtest.Talk(t, c))
		k.Say(frame+greeting+"\x05\x01\x00\x03\x0decho.internal\x00\x07", frame+chosen+"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x07")
		k.Say("hello", "hello")
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		k.Ends(cmdtest.Closed)
	})
}

func TestIdle(t *testing.T) {
	_, addr := emulate(t, "--idle", "50ms")
	cmdtest.Dial(t, addr).Ends(cmdtest.Closed)
}

// TestHTTPFaults: each, as a client sees the answer to its request.
func TestHTTPFaults(t *testing.T) {
	for _, tt := range []struct {
		args   []string
		status int
		header [2]string
		body   string
	}{
		{args: []string{"--fault-status", "502", "--fault-body", "<html>a gateway"}, status: 502, body: "<html>a gateway"},
		{args: []string{"--fault-informational", "2"}, status: 103},
		{args: []string{"--fault-header", "X-Via: gw", "--fault-byte-at-a-time", "--fault-delay", "1ms"}, status: 101, header: [2]string{"X-Via", "gw"}},
		{args: []string{"--fault-replace-header", "sec-websocket-protocol:"}, status: 101, header: [2]string{"Sec-WebSocket-Protocol", ""}},
		{args: []string{"--fault-replace-header", "Upgrade: h2c"}, status: 101, header: [2]string{"Upgrade", "h2c"}},
		{args: []string{"--fault-raw", `HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi`}, status: 200, body: "hi"},
	} {
		t.Run(fmt.Sprint(tt.args), func(t *testing.T) {
			_, addr := emulate(t, tt.args...)
			resp, _ := upgrade(t, cmdtest.Dial(t, addr))
			if resp.StatusCode != tt.status || tt.header[0] != "" && resp.Header.Get(tt.header[0]) != tt.header[1] {
				t.Errorf("%s, %v", resp.Status, resp.Header)
			}
			if tt.body == "" {
				return
			}
			if b, err := io.ReadAll(resp.Body); string(b) != tt.body {
				t.Errorf("%q, %v", b, err)
			}
		})
	}
	_, addr := emulate(t, "--fault-lower-case")
	c := cmdtest.Dial(t, addr)
	c.Say(request(), "HTTP/1.1 101 Switching Protocols\r\nserver: ")
	_, addr = emulate(t, "--fault-endless-header")
	c = cmdtest.Dial(t, addr)
	c.Say(request(), "HTTP/1.1 101 Switching Protocols\r\n"+strings.Repeat("X-More: "+strings.Repeat("a", 1000)+"\r\n", 100))
	_, addr = emulate(t, "--fault-status", "403", "--fault-open-body")
	resp, r := upgrade(t, cmdtest.Dial(t, addr))
	if resp.ContentLength != -1 || r.Buffered() == 0 {
		t.Errorf("%s, %d bytes", resp.Status, resp.ContentLength)
	}
}

// TestSOCKSFaults: each, as a client sees it behind the 101.
func TestSOCKSFaults(t *testing.T) {
	echo := nettest.Serve(t, nettest.Echo)
	type step [2]string
	for _, tt := range []struct {
		args  string
		steps []step
		end   string
	}{
		{"--fault-frame 8100", []step{{frame, "\x81\x00"}}, cmdtest.Silent},
		{"--fault-method 02", []step{{frame, frame}, {greeting, "\x05\x02"}}, cmdtest.Silent},
		{"--fault-reply 05", []step{{frame, frame}, {greeting, chosen}, {ask, "\x05\x05\x00\x01\x00\x00\x00\x00\x15\x38"}}, cmdtest.Silent},
		{"--fault-reply 05 --fault-short-reply", []step{{frame, frame}, {greeting, chosen}, {ask, "\x05\x05"}}, cmdtest.Silent},
		{"--fault-bound far.corp", []step{{frame, frame}, {greeting, chosen}, {ask, "\x05\x00\x00\x03\x08far.corp\x15\x38"}}, cmdtest.Silent},
		{"--fault-ahead hi", []step{{frame, frame}, {greeting, chosen}, {ask, success + "hi"}}, cmdtest.Silent},
		{"--fault-dial-at-once", []step{{frame, frame}, {greeting, chosen}, {"\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x01", "\x05\x05"}}, ""},
		{"--fault-silent-at upgrade", []step{{frame, ""}}, cmdtest.Silent},
		{"--fault-close-at frame", []step{{frame, frame}}, cmdtest.Closed},
		{"--fault-reset-at greeting", []step{{frame, frame}, {greeting, chosen}}, cmdtest.Reset},
		{"--fault-close-at connect", []step{{frame, frame}, {greeting, chosen}, {ask, success}}, cmdtest.Closed},
	} {
		t.Run(tt.args, func(t *testing.T) {
			e, addr := emulate(t, append(strings.Fields(tt.args), "--map", "db.corp:5432="+echo)...)
			c := upgraded(t, cmdtest.Dial(t, addr))
			for _, s := range tt.steps {
				c.Say(s[0], s[1])
			}
			if tt.end != "" {
				c.Ends(tt.end)
			}
			if log := e.Stop(t); strings.Contains(tt.args, "-at ") && tt.end != cmdtest.Silent && !strings.Contains(log, "msg=fault") {
				t.Errorf("logged %s", log)
			}
		})
	}
	_, addr := emulate(t, "--fault-reset-at", "accept")
	if c, err := net.Dial("tcp", addr); err == nil {
		cmdtest.Talk(t, c).Ends(cmdtest.Reset)
	} else if !errors.Is(err, syscall.ECONNRESET) { // it may come before the dial returns
		t.Error(err)
	}
	_, addr = emulate(t, "--fault-close-at", "request")
	c := cmdtest.Dial(t, addr)
	c.Say(request(), "")
	c.Ends(cmdtest.Closed)
}

func TestUsage(t *testing.T) {
	for _, tt := range []struct {
		want string
		args []string
	}{
		{`--map: "db.corp" is not host:port`, []string{"--map", "db.corp=127.0.0.1:1"}},
		{"port from 1 to 65535", []string{"--map", "db.corp:1=127.0.0.1:0"}},
		{"give one of --fault-silent-at", []string{"--fault-silent-at", "accept", "--fault-close-at", "frame"}},
		{"from 200 to 599", []string{"--fault-status", "101"}}, // a 101 needs a request that asks for one
		{"not NAME:VALUE", []string{"--fault-header", "x"}},
		{"not NAME:VALUE", []string{"--fault-replace-header", "x"}},
		{`no header "Server"`, []string{"--fault-replace-header", "Server: x"}},
		{"read password", []string{"--user", "alice=" + filepath.Join(t.TempDir(), "none")}},
		{"this machine alone", []string{"--address", "0.0.0.0:0"}},
	} {
		cmdtest.Fails(t, Emulate(), tt.want, append([]string{"--address", "127.0.0.1:0"}, tt.args...)...)
	}
}

// Every option of the emulator, and every fault, has a flag. The clock has none but
// --fault-clock-offset.
func TestEveryOption(t *testing.T) {
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	e, cmd := newEmulation()
	cmdtest.Start(t, cmd, "--address", "127.0.0.1:0", "--tls-ca-file", filepath.Join(t.TempDir(), "ca.pem"), "--map", "a:1=b:1",
		"--user", "a="+file, "--name", "x", "--idle", "1s",
		"--fault-close-at", "frame", "--fault-delay", "1s", "--fault-byte-at-a-time", "--fault-tls13", "--fault-close-notify",
		"--fault-clock-offset", "1s", "--fault-status", "500", "--fault-body", "x", "--fault-open-body", "--fault-raw", "x",
		"--fault-informational", "1", "--fault-lower-case", "--fault-header", "a:b", "--fault-replace-header", "Upgrade:x",
		"--fault-endless-header", "--fault-frame", "00", "--fault-method", "01", "--fault-reply", "01", "--fault-short-reply",
		"--fault-bound", "x", "--fault-ahead", "x", "--fault-dial-at-once")
	if unset := cmdtest.Unset(e.options); fmt.Sprint(unset) != "[Now]" {
		t.Errorf("no flag sets %v", unset)
	}
}
