package pluginhost

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tunneld/tunneld/internal/fdtest"
	"github.com/tunneld/tunneld/plugins/sdk/sdktest/fixture"
)

// TestNothingLeft counts descriptors and children over many lives.
func TestNothingLeft(t *testing.T) {
	target := echoServer(t)
	h := newHost(t, nil)
	round := func() {
		p := h.start(t, Spec{Name: fixture.RelayName, Bundled: true})
		configure(t, p, 1, `{}`)
		c, err := dialTo(t, p, 1, target)
		if err != nil {
			t.Fatal(err)
		}
		exchange(t, c, "bytes")
		restarts := p.State().Restarts
		if err := syscall.Kill(p.State().PID, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		h.await(t, "restart", func(s State) bool { return s.Restarts > restarts && s.Status == StatusRunning })
		if err := p.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		h.mu.Lock()
		h.states = nil
		h.mu.Unlock()
		h.startFails(t, rawSpec("exit"))
		h.startFails(t, Spec{Name: rawName, Command: []string{"/nonexistent/plugin"}})
	}
	round()
	before := fdtest.Open(t)
	for range 3 {
		round()
	}
	settled(t, before)
	// An answer of "no child" would be ECHILD; a zombie is reported at once.
	var info unix.Siginfo
	if err := unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil); !errors.Is(err, unix.ECHILD) {
		t.Errorf("children are left: %v", err)
	}
	entries, err := os.ReadDir(h.run.path)
	if err != nil || len(entries) > 0 {
		t.Errorf("left in the run directory: %v, %v", entries, err)
	}
}

// TestEnvironment looks at a plugin from outside: nothing of the daemon's
// environment but what is passed on, and no secret in its command line.
func TestEnvironment(t *testing.T) {
	t.Setenv("DATABASE_PASSWORD", "hunter2")
	t.Setenv("HTTPS_PROXY", "http://proxy.example:3128")
	t.Setenv("TUNNELD_PLUGIN_CHANNEL", "99")
	for _, form := range forms {
		t.Run(form, func(t *testing.T) {
			h := newHost(t, nil)
			p := h.start(t, spec(t, form, fixture.DirectName, map[string]string{"OWN_TOKEN": "s3cret", "TUNNELD_PLUGIN_CHANNEL": "98", "TUNNELD_KEY_LOG": "1"}))
			configure(t, p, 1, `{"secret":"t0psecret"}`)
			pid := strconv.Itoa(p.State().PID)
			environ, err := os.ReadFile("/proc/" + pid + "/environ")
			if err != nil {
				t.Fatal(err)
			}
			got := map[string]string{}
			for kv := range strings.SplitSeq(strings.TrimRight(string(environ), "\x00"), "\x00") {
				k, v, _ := strings.Cut(kv, "=")
				got[k] = v
			}
			for k, want := range map[string]string{
				"OWN_TOKEN":                "s3cret",
				"HTTPS_PROXY":              "http://proxy.example:3128",
				"TUNNELD_PLUGIN_CHANNEL":   "3",
				"TUNNELD_PLUGIN_LOG_LEVEL": "debug",
				"PATH":                     os.Getenv("PATH"),
				"TUNNELD_KEY_LOG":          "", // only the daemon's environment allows a key log
			} {
				if got[k] != want {
					t.Errorf("%s=%q, want %q", k, got[k], want)
				}
			}
			if dir := got["PLUGIN_UNIX_SOCKET_DIR"]; filepath.Dir(dir) != h.run.path {
				t.Errorf("the socket is in %s, not under %s", dir, h.run.path)
			}
			page := protocolPage(t)
			for k := range got {
				if own := k == "OWN_TOKEN" || k == "GORACE"; !own && !strings.Contains(page, "`"+strings.ToUpper(k)+"`") {
					t.Errorf("docs/plugin-protocol.md does not have %s", k)
				}
				if !slices.Contains(passedOn, k) && !slices.Contains([]string{
					"OWN_TOKEN", "GORACE", "TUNNELD_PLUGIN", "TUNNELD_PLUGIN_CHANNEL", "TUNNELD_PLUGIN_LOG_LEVEL",
					"PLUGIN_MIN_PORT", "PLUGIN_MAX_PORT", "PLUGIN_PROTOCOL_VERSIONS", "PLUGIN_UNIX_SOCKET_DIR",
				}, k) {
					t.Errorf("the plugin sees %s", k)
				}
			}
			cmdline, err := os.ReadFile("/proc/" + pid + "/cmdline")
			if err != nil {
				t.Fatal(err)
			}
			exe, _ := os.Executable()
			want := exe + "\x00plugin\x00serve\x00" + fixture.DirectName + "\x00"
			if form == "external" {
				want = p.spec.Command[0] + "\x00"
			}
			if string(cmdline) != want {
				t.Errorf("command line %q, want %q", cmdline, want)
			}
			for _, secret := range []string{"s3cret", "t0psecret", "hunter2"} {
				if n := h.log.count(secret); n > 0 {
					t.Errorf("%d log lines hold a secret", n)
				}
			}
		})
	}
}
