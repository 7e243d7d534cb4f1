//go:build interop

package interop

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"io"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/nettest"
	"github.com/tunneld/tunneld/internal/proctest"
	"github.com/tunneld/tunneld/plugins/sapsocks"
	"github.com/tunneld/tunneld/plugins/sapsocks/sapsocksemu"
	"github.com/tunneld/tunneld/plugins/sdk/sdktest"
)

// server runs server.js and returns its address.
func server(t *testing.T, options any) string {
	t.Helper()
	cmd := exec.Command(proctest.Node(t), "server.js", text(t, options))
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill := time.AfterFunc(2*patience, func() { _ = cmd.Process.Kill() })
	t.Cleanup(func() {
		_ = stdin.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("node server.js: %v\n%s", err, &stderr)
		}
		kill.Stop()
	})
	var started struct{ Port int }
	if err := json.NewDecoder(stdout).Decode(&started); err != nil {
		t.Fatalf("node server.js: %v", err)
	}
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(started.Port))
}

// client runs client.js and returns what it printed.
func client(t *testing.T, options any) (result struct {
	Echoed int
	Same   bool
	Error  string
}) {
	t.Helper()
	node := proctest.Node(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, node, "client.js", text(t, options)).Output()
	if err == nil {
		err = json.Unmarshal(out, &result)
	}
	if err != nil {
		t.Fatalf("node client.js: %v: %s", err, out)
	}
	return result
}

func text(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

type values = map[string]any

// tunneld → npm @luminati-io/socksv5 as the proxy.
func TestSapsocksToNodeServer(t *testing.T) {
	host, port := split(t, nettest.Serve(t, nettest.Echo))
	token := strings.Repeat("x", 20<<10)
	address := server(t, values{"token": token, "location": "berlin", "map": values{"db.corp:5432": []any{host, port}}})
	plugin := sdktest.Start(t, sapsocks.Plugin())
	good := plugin.Configure(t, "good", values{"proxy": address, "token": token, "location_id": "berlin"})

	t.Run("a mapped name, both ways, half-closed", func(t *testing.T) {
		exchange(t, good, "db.corp:5432", 4<<20)
	})
	t.Run("an IPv4 address, by the package's own connection", func(t *testing.T) {
		exchange(t, good, net.JoinHostPort(host, strconv.Itoa(port)), 1<<20)
	})
	t.Run("a denial comes as two bytes and the end", func(t *testing.T) {
		refused(t, good, "nowhere.corp:1", sapsocks.ReplyNoMapping)
	})
	t.Run("another token", func(t *testing.T) {
		refused(t, plugin.Configure(t, "token", values{"proxy": address, "token": "y", "location_id": "berlin"}), "db.corp:5432", sapsocks.AuthRefused)
	})
	t.Run("another location id", func(t *testing.T) {
		refused(t, plugin.Configure(t, "location", values{"proxy": address, "token": token}), "db.corp:5432", sapsocks.AuthRefused)
	})
	t.Run("no authentication, which this server does not take", func(t *testing.T) {
		refused(t, plugin.Configure(t, "none", values{"proxy": address, "auth": "none"}), "db.corp:5432", sapsocks.ProxyWantsAuth)
	})
}

// npm socks with its custom authentication → the emulated proxy.
func TestNodeClientToEmulator(t *testing.T) {
	backend := nettest.Serve(t, nettest.Echo)
	emu := emulate(t, sapsocksemu.Options{
		TokenSize:  20 << 10,
		Connectors: map[string]map[string]string{"": {}, "berlin": {"db.corp:5432": backend, "10.0.0.1:1": backend}},
	})
	_, port := split(t, emu.Proxy())
	token := emu.IssueToken(time.Hour)
	for name, tt := range map[string]struct {
		options values
		err     string // empty: it goes well
	}{
		"a name":          {values{"token": token, "location": "berlin", "host": "db.corp", "port": 5432}, ""},
		"an IPv4 address": {values{"token": token, "location": "berlin", "host": "10.0.0.1", "port": 1}, ""},
		"no mapping":      {values{"token": token, "location": "berlin", "host": "db.corp", "port": 1}, "NotAllowed"},
		"no connector":    {values{"token": token, "location": "paris", "host": "db.corp", "port": 5432}, "NetworkUnreachable"},
		"a forged token":  {values{"token": "forged", "location": "berlin", "host": "db.corp", "port": 5432}, "Authentication failed"},
		"no token":        {values{"host": "db.corp", "port": 5432}, "no accepted authentication type"},
	} {
		t.Run(name, func(t *testing.T) {
			tt.options["proxy"], tt.options["bytes"] = port, 1<<20
			got := client(t, tt.options)
			if tt.err != "" {
				if !strings.Contains(got.Error, tt.err) {
					t.Errorf("%+v, want an error with %q", got, tt.err)
				}
			} else if got.Echoed != 1<<20 || !got.Same {
				t.Errorf("%+v", got)
			}
		})
	}
	for _, said := range emu.Conversations() {
		if n := len(said.Methods); said.Token != "" && (n < 2 || said.Methods[n-1] != 0x80) {
			t.Errorf("the package offered %v", said.Methods)
		}
	}
}

// npm socks without authentication → the emulated proxy in trusted mode.
func TestNodeClientToTrustedEmulator(t *testing.T) {
	emu := emulate(t, sapsocksemu.Options{Trusted: true, Connectors: map[string]map[string]string{"": {"db.corp:1": nettest.Serve(t, nettest.Echo)}}})
	_, port := split(t, emu.Proxy())
	if got := client(t, values{"proxy": port, "host": "db.corp", "port": 1, "bytes": 1 << 20}); got.Echoed != 1<<20 || !got.Same {
		t.Errorf("%+v", got)
	}
}

// exchange sends random bytes through a tunnel to an echo service, ends its
// direction and wants them back.
func exchange(t *testing.T, u *sdktest.Upstream, target string, size int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := u.Dial(ctx, target)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	if c.Path != "direct" {
		t.Errorf("path %s", c.Path)
	}
	sent := make([]byte, size)
	_, _ = rand.Read(sent)
	written := make(chan error, 1)
	go func() {
		_, err := c.Write(sent)
		if err == nil {
			err = c.CloseWrite()
		}
		written <- err
	}()
	got, err := io.ReadAll(c)
	if werr := <-written; err != nil || werr != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d bytes of %d came back, %v, %v", len(got), size, err, werr)
	}
}
