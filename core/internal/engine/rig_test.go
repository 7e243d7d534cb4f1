package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tunneld/tunneld/core/internal/plugintest"
	"github.com/tunneld/tunneld/core/status"
	"github.com/tunneld/tunneld/internal/logtest"
	"github.com/tunneld/tunneld/internal/nettest"
	"github.com/tunneld/tunneld/plugins/sdk"
)

// TestMain lets the test's binary be the toy plugins as well.
func TestMain(m *testing.M) {
	plugintest.Serve(map[string]func() int{
		toyName:      func() int { return sdk.Serve(toyPlugin(toyName)) },
		otherToyName: func() int { return sdk.Serve(toyPlugin(otherToyName)) },
		heirName:     serveHeir,
	})
	goleak.VerifyTestMain(m)
}

// patience bounds what a test waits for; nothing is asserted about the time.
const patience = 30 * time.Second

// longPause is one that no test waits for.
const longPause = time.Hour

// rig is an engine in the test's process, whose plugins are processes of the test's
// binary. Its clients reach an echo service. The test resolves the names that it
// listens on.
type rig struct {
	*Engine
	names *names
	log   *logtest.Log
	path  string
	echo  string
}

// start runs the configuration that config returns until the test ends.
func start(t testing.TB, n map[string][]string, config func(echo string) string) *rig {
	t.Helper()
	return startWith(t, n, config, func(*Options) {})
}

// startWith is start with other options.
func startWith(t testing.TB, n map[string][]string, config func(echo string) string, change func(*Options)) *rig {
	t.Helper()
	r := &rig{names: &names{}, log: logtest.New(patience), path: filepath.Join(t.TempDir(), "tunneld.hcl"), echo: nettest.Serve(t, nettest.Echo)}
	r.names.set(n)
	r.write(t, config(r.echo))
	o := Options{
		ConfigPath: r.path,
		Lookup:     r.names.lookup,

		FailingPause: longPause,
		Log:          slog.New(slog.NewJSONHandler(r.log, &slog.HandlerOptions{Level: slog.LevelInfo})),
	}
	change(&o)
	e, diags, err := Start(t.Context(), o)
	if err != nil {
		t.Fatal(err, diags)
	}
	r.Engine = e
	t.Cleanup(func() {
		now, cancel := context.WithCancel(context.Background())
		cancel()
		if err := e.Stop(now); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("log:\n%s", r.log)
		}
	})
	return r
}

func (r *rig) write(t testing.TB, config string) {
	t.Helper()
	if err := os.WriteFile(r.path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
}

// reload puts config in force, and returns what its author is told.
func (r *rig) reload(t *testing.T, config string) string {
	t.Helper()
	r.write(t, config)
	out := r.Reload(t.Context())
	if out.Error != "" {
		t.Fatalf("reload: %s\n%s", out.Error, out.Diagnostics)
	}
	return out.Diagnostics
}

// reloadFails expects that config is not put in force, for a reason that has the text.
func (r *rig) reloadFails(t *testing.T, config, want string) {
	t.Helper()
	r.write(t, config)
	out := r.Reload(t.Context())
	if out.Error == "" || !strings.Contains(out.Error+"\n"+out.Diagnostics, want) {
		t.Fatalf("reload: %q\n%s\nwant %q", out.Error, out.Diagnostics, want)
	}
}

// upstream returns the status of one.
func (r *rig) upstream(t *testing.T, id string) status.Upstream {
	t.Helper()
	all := r.Status().Upstreams
	i := slices.IndexFunc(all, func(u status.Upstream) bool { return u.ID == id })
	if i < 0 {
		t.Fatalf("there is no upstream %s", id)
	}
	return all[i]
}

// at returns the addresses of a listener, which have one port.
func (r *rig) at(t testing.TB, id string) (addresses []string, port string) {
	t.Helper()
	for _, l := range r.Status().Listeners {
		if l.ID != id {
			continue
		}
		for _, a := range l.Addresses {
			_, p, err := net.SplitHostPort(a)
			if err != nil || port != "" && p != port {
				t.Fatalf("addresses %q, %v", l.Addresses, err)
			}
			port = p
		}
		if l.Address != l.Addresses[0] {
			t.Errorf("address %q of %q", l.Address, l.Addresses)
		}
		return l.Addresses, port
	}
	t.Fatalf("there is no listener %s", id)
	return nil, ""
}

// sockets are those that serve a listener.
func (r *rig) sockets(id string) []*listening {
	r.turn <- struct{}{}
	defer func() { <-r.turn }()
	return of[*listening](r.Engine.sockets, listenerBlock(id))
}

// metricsSockets are those that serve the metrics.
func (r *rig) metricsSockets() []*metricsSocket {
	r.turn <- struct{}{}
	defer func() { <-r.turn }()
	return of[*metricsSocket](r.Engine.sockets, metricsBlock)
}

// visit has something echoed.
func visit(t *testing.T, address string) {
	t.Helper()
	c := dialAt(t, address)
	defer c.Close()
	echoed(t, c)
}

// dialAt connects to an address as the status has it.
func dialAt(t *testing.T, address string) net.Conn {
	t.Helper()
	network := "tcp"
	if path, ok := strings.CutPrefix(address, "unix://"); ok {
		network, address = "unix", path
	}
	c, err := net.DialTimeout(network, address, patience)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// echoed sends something and reads it back.
func echoed(t testing.TB, c net.Conn) {
	t.Helper()
	b := make([]byte, 5)
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, b); err != nil || string(b) != "hello" {
		t.Fatalf("%s: %q, %v", c.RemoteAddr(), b, err)
	}
}

// wantReset connects and expects nothing but a reset.
func wantReset(t *testing.T, address string) {
	t.Helper()
	wantResetFrom(t, "", address, "")
}

// wantResetFrom connects from an address, or from any, says something, or nothing, and
// expects nothing but a reset. It may come so soon that already the connect is told of it.
func wantResetFrom(t *testing.T, source, address, say string) {
	t.Helper()
	var heard []byte
	c, err := connect(t.Context(), source, address)
	if err == nil {
		defer c.Close()
		// Where the reset was there first, the write has taken its error.
		if _, err = io.WriteString(c, say); err == nil {
			heard, err = io.ReadAll(c)
		}
	}
	if !errors.Is(err, syscall.ECONNRESET) && (say == "" || !errors.Is(err, syscall.EPIPE)) || len(heard) > 0 {
		t.Fatalf("%s, from %q: %q, %v, want a reset", address, source, heard, err)
	}
}

func wantRefused(t *testing.T, address string) {
	t.Helper()
	c, err := net.DialTimeout("tcp", address, patience)
	if err == nil {
		c.Close()
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("%s: %v, want that it is refused", address, err)
	}
}

func needIPv6(t *testing.T) {
	t.Helper()
	ln, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Skip("this machine has no IPv6: ", err)
	}
	_ = ln.Close()
}

func scrape(t *testing.T, at fmt.Stringer) {
	t.Helper()
	if code, _ := get(t, at, "/healthz"); code != http.StatusOK {
		t.Errorf("%s: %d", at, code)
	}
}

// get asks the metrics' server. It keeps no connection.
func get(t *testing.T, at fmt.Stringer, path string) (code int, text string) {
	t.Helper()
	client := http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Get("http://" + at.String() + path)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

// shortDir is a folder in which a socket's path fits into its address.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "engine")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}
