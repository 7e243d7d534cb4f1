package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// emulated is a run of "tunneld emulate azrelay".
type emulated struct {
	endpoint string // the line for the upstream's block
	cancel   context.CancelFunc
	log      bytes.Buffer
	done     chan int
}

func emulate(t *testing.T, args ...string) *emulated {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	e := &emulated{cancel: cancel, done: make(chan int, 1)}
	out, w := io.Pipe()
	go func() {
		e.done <- run(ctx, append([]string{"emulate", "azrelay"}, args...), strings.NewReader(""), w, &e.log)
		_ = w.Close()
	}()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("%v: %s", err, e.stop(t))
	}
	e.endpoint = line
	return e
}

// stop ends the run and returns what it logged.
func (e *emulated) stop(t *testing.T) string {
	t.Helper()
	e.cancel()
	if status := <-e.done; status != exitOK {
		t.Errorf("exit status %d", status)
	}
	return e.log.String()
}

// TestEmulateAzrelay runs the emulated service as its own command and a daemon
// against it, with a key and over TLS.
func TestEmulateAzrelay(t *testing.T) {
	echo, err := startEcho()
	if err != nil {
		t.Fatal(err)
	}
	defer echo.Close()
	dir := t.TempDir()
	key, ca := filepath.Join(dir, "key"), filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(key, []byte("a-key=\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	e := emulate(t, "--key-file", key, "--tls-ca-file", ca, "--forward", echo.Addr())
	d := startDaemon(t, fmt.Sprintf(`
upstream "azrelay" "bridge" {
  namespace         = "127.0.0.1"
  hybrid_connection = "demo"
  key_name          = "RootManageSharedAccessKey"
  key               = file(%q)
  %s
  tls {
    ca_file = %q
  }
}
`, key, e.endpoint, ca)+listener("db", "127.0.0.1:0", "demo", "")+route("all", "", "upstream.azrelay.bridge"))
	c := d.dial(t, "tcp.db")
	pingPong(t, c, "through the emulated service")
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	d.log.Await(t, 1, "msg", "connection", "path", "relay")
	if log := e.stop(t); !strings.Contains(log, "action=connect path=demo") || strings.Contains(log, "sig") {
		t.Errorf("logged %s", log)
	}
}

// TestEmulateAzrelayAnonymous has a listener of its own, which needs a token, and
// a sender without one.
func TestEmulateAzrelayAnonymous(t *testing.T) {
	key := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(key, []byte("a-key=\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	e := emulate(t, "--anonymous", "--key-file", key)
	address := strings.Trim(strings.TrimPrefix(e.endpoint, "endpoint = "), "\"\n")
	var token strings.Builder
	if status := run(t.Context(), []string{"azrelay", "token", "--namespace", "127.0.0.1", "--hybrid-connection", "demo",
		"--key-name", "RootManageSharedAccessKey", "--key-file", key}, strings.NewReader(""), &token, io.Discard); status != exitOK {
		t.Fatalf("exit status %d", status)
	}
	ask := func(query string) *bufio.Reader {
		t.Helper()
		c, err := net.Dial("tcp", strings.TrimPrefix(address, "ws://"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		_ = c.SetDeadline(time.Now().Add(patience))
		fmt.Fprintf(c, "GET /$hc/demo?%s HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n", query)
		return bufio.NewReader(c)
	}
	listener := ask("sb-hc-action=listen&sb-hc-token=" + url.QueryEscape(strings.TrimSpace(token.String())))
	if resp, err := http.ReadResponse(listener, nil); err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("a listener with a token: %v, %v", resp, err)
	}
	ask("sb-hc-action=connect")
	if offer, err := listener.ReadString('}'); err != nil || !strings.Contains(offer, `"accept"`) {
		t.Errorf("the listener read %q, %v", offer, err)
	}
	if log := e.stop(t); !strings.Contains(log, "action=listen path=demo") || strings.Contains(log, "sig") {
		t.Errorf("logged %s", log)
	}
}

// TestAzrelayUsage: a command of a plugin ends with the statuses of the others.
func TestAzrelayUsage(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	token := []string{"azrelay", "token", "--namespace", "n", "--hybrid-connection", "h", "--key-name", "k", "--key-file"}
	for name, tc := range map[string]struct {
		args []string
		want int
		says string
	}{
		"an empty key":     {append(token, empty), exitUsage, "contains no key"},
		"no key":           {append(token, empty+".none"), exitFailed, "read key"},
		"two framings":     {[]string{"emulate", "azrelay", "--forward", "a:1", "--bridge", "x=a:1"}, exitUsage, "--forward or --bridge"},
		"nobody can come":  {[]string{"emulate", "azrelay"}, exitUsage, "--key-file"},
		"an argument more": {[]string{"emulate", "azrelay", "x"}, exitUsage, "--help"},
	} {
		t.Run(name, func(t *testing.T) {
			var stderr bytes.Buffer
			if got := run(t.Context(), tc.args, strings.NewReader(""), io.Discard, &stderr); got != tc.want || !strings.Contains(stderr.String(), tc.says) {
				t.Errorf("exit status %d, %s", got, stderr.String())
			}
		})
	}
}
