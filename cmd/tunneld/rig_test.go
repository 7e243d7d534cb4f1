package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tunneld/tunneld/core"
	"github.com/tunneld/tunneld/core/diag"
	"github.com/tunneld/tunneld/core/status"
	"github.com/tunneld/tunneld/internal/logtest"
	"github.com/tunneld/tunneld/internal/nettest"
	"github.com/tunneld/tunneld/plugins/sapsocks/sapsocksemu"
)

// patience bounds what a test waits for; nothing is asserted about the time.
const patience = 30 * time.Second

// daemonRig is a daemon in the test's process; its plugins are real processes.
type daemonRig struct {
	*core.Daemon
	log  *logtest.Log
	path string
}

const jsonLog = "log {\n  level = \"debug\"\n  format = \"json\"\n}\n"

// startDaemon runs the configuration until the test ends.
func startDaemon(t *testing.T, config string) *daemonRig {
	t.Helper()
	r := &daemonRig{log: logtest.New(patience), path: filepath.Join(t.TempDir(), "tunneld.hcl")}
	r.write(t, config)
	opts := options(r.path)
	opts.Log = r.log
	d, diags, err := core.Start(t.Context(), opts)
	if err != nil {
		t.Fatalf("start: %v\n%s\n%s", err, told(diags), r.log)
	}
	r.Daemon = d
	t.Cleanup(func() {
		now, cancel := context.WithCancel(context.Background())
		cancel()
		if err := d.Stop(now); err != nil {
			t.Errorf("stop: %v", err)
		}
		if t.Failed() {
			t.Logf("log:\n%s", r.log)
		}
	})
	return r
}

// told is what a user reads.
func told(diags diag.Diagnostics) string {
	var b strings.Builder
	diags.Write(&b)
	return b.String()
}

// reload puts the configuration in force.
func (r *daemonRig) reload(t *testing.T, config string) {
	t.Helper()
	r.write(t, config)
	r.mustReload(t)
}

// mustReload reloads what was written.
func (r *daemonRig) mustReload(t *testing.T) {
	t.Helper()
	out := r.Reload(t.Context())
	r.settle(t)
	if out.Error != "" {
		t.Fatalf("reload: %s\n%s", out.Error, out.Diagnostics)
	}
}

// settle waits until the log has all that was written before the outcome of the
// last reload: a reload does not wait for it.
func (r *daemonRig) settle(t *testing.T) {
	t.Helper()
	if last := r.Status().Reload; last.Error == "" {
		r.log.Await(t, 1, "msg", "reloaded", "generation", fmt.Sprint(last.Generation))
	} else {
		r.log.Await(t, 1, "msg", "reload failed, the old configuration stays in force", "generation", fmt.Sprint(last.Generation))
	}
}

// reloadFails expects that the configuration is not put in force, and that the
// user is told all of the texts.
func (r *daemonRig) reloadFails(t *testing.T, config string, want ...string) status.Reload {
	t.Helper()
	r.write(t, config)
	out := r.Reload(t.Context())
	r.settle(t)
	if out.Error == "" {
		t.Fatal("the configuration was put in force")
	}
	for _, w := range want {
		if !strings.Contains(out.Diagnostics, w) {
			t.Errorf("%q is missing in:\n%s", w, out.Diagnostics)
		}
	}
	return out
}

func (r *daemonRig) write(t *testing.T, config string) {
	t.Helper()
	if err := os.WriteFile(r.path, []byte(jsonLog+config), 0o600); err != nil {
		t.Fatal(err)
	}
}

// address returns where a listener is bound.
func (r *daemonRig) address(t *testing.T, id string) string {
	t.Helper()
	for _, l := range r.Status().Listeners {
		if l.ID == id {
			return l.Address
		}
	}
	t.Fatalf("there is no listener %s", id)
	return ""
}

func (r *daemonRig) dial(t *testing.T, id string) *net.TCPConn {
	t.Helper()
	return dialTCP(t, r.address(t, id))
}

func dialTCP(t *testing.T, address string) *net.TCPConn {
	t.Helper()
	c, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return c.(*net.TCPConn)
}

// pluginPIDs returns the processes of a plugin that parent has started.
func pluginPIDs(t *testing.T, parent int, name string) []int {
	t.Helper()
	entries, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	var out []int
	for _, e := range entries {
		b, err := os.ReadFile(e)
		if err != nil {
			continue // gone meanwhile
		}
		var pid, ppid int
		var state string
		_, rest, _ := strings.Cut(string(b), ") ")
		if _, err := fmt.Sscanf(filepath.Base(filepath.Dir(e)), "%d", &pid); err != nil {
			continue
		}
		if _, err := fmt.Sscanf(rest, "%s %d", &state, &ppid); err != nil || ppid != parent || state == "Z" {
			continue
		}
		cmdline, err := os.ReadFile(filepath.Join(filepath.Dir(e), "cmdline"))
		if err == nil && strings.Contains(string(cmdline), "serve\x00"+name+"\x00") {
			out = append(out, pid)
		}
	}
	return out
}

// killPlugin ends a plugin's process without a warning, and waits until the daemon has
// noticed: a dial that is under way then fails, and one that begins waits for the next.
func killPlugin(t *testing.T, log *logtest.Log, name string) {
	t.Helper()
	pids := pluginPIDs(t, os.Getpid(), name)
	if len(pids) != 1 {
		t.Fatalf("plugin %s has the processes %v", name, pids)
	}
	died := len(log.Matching("msg", "plugin died", "plugin", name))
	if err := syscall.Kill(pids[0], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	log.Await(t, died+1, "msg", "plugin died", "plugin", name)
}

// sapsocksRig is an emulated proxy that leads to an echo service, and the
// upstream block for it.
type sapsocksRig struct {
	emu  *sapsocksemu.Server
	echo *echoService
}

// runEcho runs an echo service until the test ends.
func runEcho(t *testing.T) *echoService {
	t.Helper()
	echo, err := startEcho()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := echo.Close(); err != nil {
			t.Error(err)
		}
	})
	return echo
}

func startSapsocks(t *testing.T, o sapsocksemu.Options) *sapsocksRig {
	t.Helper()
	echo := runEcho(t)
	if o.Connectors == nil {
		o.Connectors = map[string]map[string]string{"": {"db.corp:5432": echo.Addr()}}
	}
	emu, err := sapsocksemu.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := emu.Close(); err != nil {
			t.Error(err)
		}
	})
	return &sapsocksRig{emu: emu, echo: echo}
}

// upstream returns the block; extra are further lines of its body.
func (s *sapsocksRig) upstream(extra string) string {
	return fmt.Sprintf(`
upstream "sapsocks" "onprem" {
  proxy = %q
  oauth {
    token_url = %q
    client_id = %q
    client_secret = %q
  }
  %s
}
`, s.emu.Proxy(), s.emu.TokenService()+"/oauth/token", s.emu.ClientID(), s.emu.ClientSecret(), extra)
}

func listener(name, address, target, extra string) string {
	return fmt.Sprintf("listener \"tcp\" %q {\n  address = %q\n  target = %q\n  %s\n}\n", name, address, target, extra)
}

// proxyListener is one whose clients name the target, at leisure.
const proxyListener = "listener \"socks5\" \"apps\" {\n address = \"127.0.0.1:0\"\n" + nettest.OpenTargets + " timeouts {\n  handshake = \"0s\"\n }\n}\n"

func route(name, match string, upstreams ...string) string {
	return fmt.Sprintf("route %q {\n  %s\n  upstreams = [%s]\n}\n", name, match, strings.Join(upstreams, ", "))
}

// onprem is a whole configuration: one listener through sapsocks.
func (s *sapsocksRig) onprem(extra string) string {
	return s.upstream("") + listener("db", "127.0.0.1:0", "db.corp:5432", extra) + route("all", "", "upstream.sapsocks.onprem")
}

func pingPong(t *testing.T, c net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, len(text))
	if _, err := io.ReadFull(c, b); err != nil || string(b) != text {
		t.Fatalf("read %q, %v; want %q", b, err, text)
	}
}

// dialReset connects and expects nothing but a reset. It may come so soon that
// already the connect is told of it.
func (r *daemonRig) dialReset(t *testing.T, id string) {
	t.Helper()
	dialReset(t, r.address(t, id))
}

func dialReset(t *testing.T, address string) {
	t.Helper()
	c, err := net.DialTimeout("tcp", address, patience)
	if errors.Is(err, syscall.ECONNRESET) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	wantReset(t, c)
}

// wantReset expects that nothing comes but a reset.
func wantReset(t *testing.T, c net.Conn) {
	t.Helper()
	n, err := io.Copy(io.Discard, c)
	if n != 0 || !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("read %d bytes, %v; want a reset and not a byte", n, err)
	}
}
