package pluginhost

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tunneld/tunneld/core/internal/tunnel"
	"github.com/tunneld/tunneld/plugins/sdk/sdktest/fixture"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// TestLife takes a plugin through all of its life.
func TestLife(t *testing.T) {
	target := echoServer(t)
	for _, form := range forms {
		for _, name := range []string{fixture.DirectName, fixture.RelayName} {
			t.Run(form+" "+name, func(t *testing.T) {
				h := newHost(t, nil)
				p := h.start(t, spec(t, form, name, nil))
				if got := p.Info().GetName(); got != name {
					t.Errorf("info %v", p.Info())
				}
				if len(p.Schema().GetAttributes()) == 0 {
					t.Errorf("schema %v", p.Schema())
				}
				r, err := p.Validate(t.Context(), upstreams(`{"invalid":"bad"}`)[0])
				ds := r.GetDiagnostics()
				if err != nil || len(ds) != 1 || ds[0].GetSummary() != "bad" || !slices.Equal(ds[0].GetPath(), []string{"invalid"}) {
					t.Errorf("validate: %v, %v", ds, err)
				}
				if ds, err := p.Configure(t.Context(), 1, upstreams(`{"invalid":"bad"}`)); err != nil || len(ds) != 1 {
					t.Errorf("configure: %v, %v", ds, err)
				}
				if s := p.State(); len(s.Generations) != 0 {
					t.Errorf("a refused generation is kept: %+v", s)
				}
				configure(t, p, 1, `{"health":"ok"}`)
				configure(t, p, 2, `{"health":"failing","prefetch":0}`)
				if _, err := p.Configure(t.Context(), 2, upstreams(`{}`)); err == nil {
					t.Error("a generation was configured twice")
				}
				c, err := dialTo(t, p, 2, target)
				if err != nil {
					t.Fatal(err)
				}
				want := map[string]tunnel.Path{fixture.DirectName: pathDirect, fixture.RelayName: pathRelay}[name]
				if c.Path != want || (c.Relay != nil) != (want == pathRelay) || c.Remote != target.String() || c.Local == "" || len(c.Stages) != 2 {
					t.Errorf("connection %+v", c)
				}
				exchange(t, c, strings.Repeat("there and back ", 1000))
				h.await(t, "both statuses", func(s State) bool {
					return len(s.Upstreams) == 2 && s.Status == StatusRunning
				})
				if err := p.Release(t.Context(), 1); err != nil {
					t.Error(err)
				}
				if err := p.Release(t.Context(), 1); err != nil {
					t.Errorf("released twice: %v", err)
				}
				if _, err := dialTo(t, p, 1, target); reason(err) != pluginv1.Reason_REASON_UNAVAILABLE {
					t.Errorf("dial of a released generation: %v", err)
				}
				if s := p.State(); !slices.Equal(s.Generations, []uint64{2}) || len(s.Upstreams) != 1 || s.Upstreams[0].GetHealth() != pluginv1.Health_HEALTH_FAILING {
					t.Errorf("state %+v", s)
				}
				if err := p.Drain(t.Context()); err != nil {
					t.Errorf("drain: %v", err)
				}
				if _, err := dialTo(t, p, 2, target); reason(err) != pluginv1.Reason_REASON_UNAVAILABLE {
					t.Errorf("dial of a drained plugin: %v", err)
				}
				pid := p.State().PID
				if err := p.Stop(t.Context()); err != nil {
					t.Fatal(err)
				}
				if s := p.State(); s.Status != StatusStopped || s.PID != 0 || !strings.Contains(s.LastExit, "exit status 0") {
					t.Errorf("state %+v", s)
				}
				if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
					t.Errorf("process %d is still there: %v", pid, err)
				}
				if err := p.Stop(t.Context()); err != nil {
					t.Errorf("stopped twice: %v", err)
				}
			})
		}
	}
}

// TestKill kills a plugin the hard way: what it handed over lives on, the next
// process has all live generations, and no other.
func TestKill(t *testing.T) {
	target := echoServer(t)
	for _, form := range forms {
		t.Run(form, func(t *testing.T) {
			h := newHost(t, nil)
			p := h.start(t, spec(t, form, fixture.DirectName, nil))
			configure(t, p, 1, `{}`)
			configure(t, p, 2, `{"health":"ok"}`)
			configure(t, p, 3, `{"print":"three"}`)
			if err := p.Release(t.Context(), 1); err != nil {
				t.Fatal(err)
			}
			old, err := dialTo(t, p, 2, target)
			if err != nil {
				t.Fatal(err)
			}
			before := p.State()
			killed := time.Now()
			if err := syscall.Kill(before.PID, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			for _, g := range []uint64{2, 3} {
				c, err := dialTo(t, p, g, target)
				for err != nil && errors.Is(err, tunnel.ErrPluginDied) {
					// The call was faster than the news of the death.
					c, err = dialTo(t, p, g, target)
				}
				if err != nil {
					t.Fatalf("dial of generation %d: %v", g, err)
				}
				exchange(t, c, "after")
			}
			if d := time.Since(killed); d > 3*time.Second {
				t.Errorf("dials worked again after %s", d)
			}
			exchange(t, old, "a direct tunnel does not need its plugin")
			after := p.State()
			if after.PID == before.PID || after.Restarts != 1 || after.LastExit != "signal: killed" || !slices.Equal(after.Generations, []uint64{2, 3}) {
				t.Errorf("state %+v", after)
			}
			if _, err := dialTo(t, p, 1, target); err == nil {
				t.Error("a released generation came back")
			}
			h.await(t, "the upstream's health after the restart", func(s State) bool {
				return s.Restarts == 1 && slices.ContainsFunc(s.Upstreams, func(u *pluginv1.UpstreamStatus) bool {
					return u.GetHealth() == pluginv1.Health_HEALTH_OK
				})
			})
		})
	}
}

// TestDialDuringDeath has a dial under way when the plugin dies.
func TestDialDuringDeath(t *testing.T) {
	h := newHost(t, nil)
	p := h.start(t, rawSpec(""))
	configure(t, p, 1, `{}`)
	_, err := dialTo(t, p, 1, tunnel.Target{Host: "die"})
	e := dialError(t, err)
	if e.Reason != pluginv1.Reason_REASON_UNAVAILABLE || !e.Retryable || !errors.Is(err, tunnel.ErrPluginDied) || !strings.Contains(e.Message, "exit status 13") {
		t.Errorf("error %+v", e)
	}
	s := h.await(t, "the death", func(s State) bool { return s.Status == StatusBackoff || s.Status == StatusStarting })
	if s.LastExit != "exit status 13" || !strings.Contains(s.LastOutput, "panic: the raw plugin dies") {
		t.Errorf("state %+v", s)
	}
}

// TestCrashLoop has a plugin that cannot be started any more: dials fail at
// once and say why, and Stop ends the waiting.
func TestCrashLoop(t *testing.T) {
	h := newHost(t, func(o *Options) { o.Backoff = Backoff{Min: time.Millisecond, Max: time.Hour} })
	dir := t.TempDir()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "tunneld-plugin-"+rawName)
	if err := os.Symlink(exe, program); err != nil {
		t.Fatal(err)
	}
	p := h.start(t, Spec{Name: rawName, Command: []string{program}})
	configure(t, p, 1, `{}`)
	if err := os.Remove(program); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(p.State().PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	h.await(t, "crash loop", func(s State) bool { return s.Status == StatusCrashLooping })
	_, err = dialTo(t, p, 1, tunnel.Target{Host: "relay"})
	e := dialError(t, err)
	if e.Reason != pluginv1.Reason_REASON_UNAVAILABLE || !e.Retryable || !strings.Contains(e.Message, "keeps dying") || !strings.Contains(e.Message, "no such file") {
		t.Errorf("error %+v", e)
	}
	if _, err := p.Configure(t.Context(), 2, upstreams(`{}`)); err == nil {
		t.Error("configured a plugin that does not run")
	}
	if err := p.Release(t.Context(), 1); err != nil {
		t.Errorf("release: %v", err)
	}
	if err := p.Drain(t.Context()); err != nil {
		t.Errorf("drain: %v", err)
	}
	if err := p.Stop(t.Context()); err != nil {
		t.Errorf("stop: %v", err)
	}
}

// TestDialWaitsForRestart has dials that come while the next process is being
// started, and one whose time is up before.
func TestDialWaitsForRestart(t *testing.T) {
	h := newHost(t, func(o *Options) { o.Backoff = Backoff{Min: 900 * time.Millisecond, Max: 900 * time.Millisecond} })
	p := h.start(t, rawSpec(""))
	configure(t, p, 1, `{}`)
	target := echoServer(t)
	// The first restart is at once, the second waits.
	for n := 1; n <= 2; n++ {
		if err := syscall.Kill(p.State().PID, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		h.await(t, "restart", func(s State) bool {
			return s.Restarts == n-1 && s.LastExit != "" && s.Status != StatusRunning || n == 1 && s.Restarts == 1
		})
		if n == 2 {
			h.await(t, "backoff", func(s State) bool { return s.Restarts == 1 && s.Status == StatusBackoff })
			ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
			_, err := p.Dialer(1, "u").Dial(ctx, tunnel.Dial{Target: target})
			cancel()
			if e := dialError(t, err); e.Reason != pluginv1.Reason_REASON_TIMEOUT || !strings.Contains(e.Message, "signal: killed") {
				t.Errorf("error %+v", e)
			}
		}
		c, err := dialTo(t, p, 1, tunnel.Target{Host: "descriptor first", Port: target.Port})
		if err != nil {
			t.Fatal(err)
		}
		exchange(t, c, "back")
	}
}

// TestRestartRefused has a restarted plugin that does not take a generation any
// more: the others work, dials of that one say why, and it is asked again until it
// does.
func TestRestartRefused(t *testing.T) {
	h := newHost(t, nil)
	s := rawSpec("")
	s.Env["RAW_MARKER"] = filepath.Join(t.TempDir(), "marker")
	p := h.start(t, s)
	configure(t, p, 1, `"refuse the second time"`)
	configure(t, p, 2, `{}`)
	if err := syscall.Kill(p.State().PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	h.await(t, "restart", func(s State) bool {
		return s.Restarts == 1 && s.Status == StatusRunning && s.Refused[1] == `upstream "u": not again`
	})
	_, err := dialTo(t, p, 1, tunnel.Target{Host: "internal"})
	if e := dialError(t, err); e.Reason != pluginv1.Reason_REASON_UNAVAILABLE || !e.Retryable || !strings.Contains(e.Message, "not again") || e.Hint != refusedHint {
		t.Errorf("error %+v", e)
	}
	if _, err := dialTo(t, p, 2, tunnel.Target{Host: "internal"}); err == nil || !strings.Contains(err.Error(), "out of luck") {
		t.Errorf("error %v", err)
	}
	if err := os.Remove(s.Env["RAW_MARKER"]); err != nil {
		t.Fatal(err)
	}
	h.await(t, "recovery", func(s State) bool { return s.Restarts == 1 && s.Status == StatusRunning && len(s.Refused) == 0 })
	if _, err := dialTo(t, p, 1, tunnel.Target{Host: "internal"}); err == nil || !strings.Contains(err.Error(), "out of luck") {
		t.Errorf("error %v", err)
	}
	h.log.await(t, "restarted plugin accepts its configuration again")
}

// TestRefusedIsReleased: what nobody wants any more is not asked for again.
func TestRefusedIsReleased(t *testing.T) {
	h := newHost(t, nil)
	s := rawSpec("")
	s.Env["RAW_MARKER"] = filepath.Join(t.TempDir(), "marker")
	p := h.start(t, s)
	configure(t, p, 1, `"refuse the second time"`)
	if err := syscall.Kill(p.State().PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	h.await(t, "refusal", func(s State) bool { return s.Status == StatusRunning && len(s.Refused) == 1 })
	if err := p.Release(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	if s := p.State(); len(s.Refused) != 0 || p.refuses() {
		t.Errorf("state %+v", s)
	}
	configure(t, p, 2, `{}`)
	if _, err := dialTo(t, p, 2, tunnel.Target{Host: "internal"}); err == nil || !strings.Contains(err.Error(), "out of luck") {
		t.Errorf("error %v", err)
	}
}

// TestRestartFails has a restarted plugin whose configuring fails: it is killed,
// for that reason and without a word of a SIGTERM.
func TestRestartFails(t *testing.T) {
	h := newHost(t, nil)
	s := rawSpec("")
	s.Env["RAW_MARKER"] = filepath.Join(t.TempDir(), "marker")
	p := h.start(t, s)
	configure(t, p, 1, `"fail the second time"`)
	if err := syscall.Kill(p.State().PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	h.await(t, "a second failure", func(s State) bool { return strings.Contains(s.LastExit, "not again") })
	if log := h.log.String(); strings.Contains(log, "SIGTERM") {
		t.Errorf("log:\n%s", log)
	}
}

// TestRestartDies has a restarted plugin that dies while it is configured: the
// state has how, and what that process printed.
func TestRestartDies(t *testing.T) {
	h := newHost(t, nil)
	s := rawSpec("")
	s.Env["RAW_MARKER"] = filepath.Join(t.TempDir(), "marker")
	p := h.start(t, s)
	configure(t, p, 1, `"die the second time"`)
	if err := syscall.Kill(p.State().PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	state := h.await(t, "a second death", func(s State) bool { return strings.Contains(s.LastExit, "exit status 13") })
	if !strings.Contains(state.LastOutput, "cannot be configured twice") {
		t.Errorf("output %q", state.LastOutput)
	}
	h.log.await(t, "plugin could not be restarted", "exit status 13", "cannot be configured twice")
}

// TestConfigureTimeout has a plugin that hangs while it is configured.
func TestConfigureTimeout(t *testing.T) {
	h := newHost(t, nil)
	p := h.start(t, rawSpec(""))
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := p.Configure(ctx, 1, upstreams(`"hang"`)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
	configure(t, p, 1, `{}`)
	if err := p.Drain(t.Context()); err == nil || !strings.Contains(err.Error(), "3 tunnels are left") {
		t.Errorf("drain: %v", err)
	}
}

// TestHostCloses stops everything, with plugins in every status.
func TestHostCloses(t *testing.T) {
	h := newHost(t, nil)
	a, b := h.start(t, rawSpec("")), h.start(t, Spec{Name: fixture.RelayName, Bundled: true})
	if got := h.Plugins(); len(got) != 2 || !slices.Contains(got, a) || !slices.Contains(got, b) {
		t.Errorf("plugins %v", got)
	}
	if err := h.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, p := range []*Plugin{a, b} {
		if s := p.State(); s.Status != StatusStopped {
			t.Errorf("state %+v", s)
		}
	}
	if _, err := h.Start(t.Context(), rawSpec("")); err == nil {
		t.Error("a closed host started a plugin")
	}
	if _, err := os.Stat(h.run.path); !os.IsNotExist(err) {
		t.Errorf("run directory: %v", err)
	}
}

func reason(err error) pluginv1.Reason {
	var e *tunnel.DialError
	if errors.As(err, &e) {
		return e.Reason
	}
	return pluginv1.Reason_REASON_UNSPECIFIED
}

func dialError(t *testing.T, err error) *tunnel.DialError {
	t.Helper()
	var e *tunnel.DialError
	if !errors.As(err, &e) {
		t.Fatalf("error %T %v, not a *tunnel.DialError", err, err)
	}
	if !strings.HasSuffix(e.Upstream, ".u") {
		t.Errorf("upstream %q", e.Upstream)
	}
	return e
}
