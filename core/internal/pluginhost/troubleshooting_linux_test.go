package pluginhost

import (
	"context"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tunneld/tunneld/core/internal/tunnel"
	"github.com/tunneld/tunneld/internal/pagetest"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

const troubleshooting = "../../../docs/troubleshooting.md"

// ownFailures are those of a plugin itself, each as the page has it, and how it
// comes about.
var ownFailures = []struct {
	says    string
	provoke func(*testing.T) error
}{
	{`plugin *name*: it keeps dying, last end: *…*`, func(t *testing.T) error {
		h := newHost(t, func(o *Options) { o.Backoff = Backoff{Min: time.Millisecond, Max: time.Hour} })
		p := startRaw(t, h, `"die the second time"`)
		kill(t, p)
		h.await(t, "crash loop", func(s State) bool { return s.Status == StatusCrashLooping })
		return dialRaw(t, p, "relay", patience)
	}},
	{`plugin *name*: it waits for its restart, last end: *…*`, func(t *testing.T) error {
		h := newHost(t, func(o *Options) { o.Backoff = Backoff{Min: time.Hour, Max: time.Hour} })
		p := startRaw(t, h, `"die the second time"`)
		kill(t, p)
		h.await(t, "backoff", func(s State) bool { return s.Status == StatusBackoff && strings.Contains(s.LastExit, "13") })
		return dialRaw(t, p, "relay", patience)
	}},
	{`it is being restarted, last end: *…*`, func(t *testing.T) error {
		h := newHost(t, func(o *Options) { o.Backoff = Backoff{Min: imminent, Max: imminent} })
		p := startRaw(t, h, `"die the second time"`)
		kill(t, p)
		h.await(t, "backoff", func(s State) bool { return s.Status == StatusBackoff && strings.Contains(s.LastExit, "13") })
		return dialRaw(t, p, "relay", time.Millisecond)
	}},
	{`plugin *name*: it was restarted and no longer accepts its configuration: *…*`, func(t *testing.T) error {
		h := newHost(t, nil)
		p := startRaw(t, h, `"refuse the second time"`)
		kill(t, p)
		h.await(t, "refusal", func(s State) bool { return s.Status == StatusRunning && len(s.Refused) == 1 })
		return dialRaw(t, p, "relay", patience)
	}},
	{`plugin *name*: the plugin died: *…*`, provokeRaw("die", patience)},
	{`the plugin did not answer in time`, provokeRaw("hang", 500*time.Millisecond)},
	{`waited for the plugin's descriptor`, provokeRaw("no descriptor", 500*time.Millisecond)},
	{`*n* dials of *upstream or plugin* are in progress already`, func(t *testing.T) error {
		h := newHost(t, func(o *Options) { o.MaxDials = 1 })
		p := startRaw(t, h, `{}`)
		p.dials <- struct{}{}
		return dialRaw(t, p, "relay", time.Millisecond)
	}},
	{`plugin *name*: it answered *…*`, provokeRaw("stream", patience)},
	{`plugin *name*: the descriptor that it handed over *…*`, provokeRaw("datagram", patience)},
	{`plugin *name*: the connection that it handed over had ended already`, provokeRaw("unconnected", patience)},
	{`plugin *name*: the descriptor did not arrive: *…*`, func(t *testing.T) error {
		return dialWithoutDescriptors(t, startRaw(t, newHost(t, nil), `{}`))
	}},
	{`plugin *name*: *…*`, provokeRaw("internal", patience)},
}

// startRaw starts a raw plugin whose generation 1 has the values.
func startRaw(t *testing.T, h *testHost, values string) *Plugin {
	t.Helper()
	s := rawSpec("")
	s.Env["RAW_MARKER"] = filepath.Join(t.TempDir(), "marker")
	p := h.start(t, s)
	configure(t, p, 1, values)
	return p
}

func provokeRaw(host string, bound time.Duration) func(*testing.T) error {
	return func(t *testing.T) error { return dialRaw(t, startRaw(t, newHost(t, nil), `{}`), host, bound) }
}

func dialRaw(t *testing.T, p *Plugin, host string, bound time.Duration) error {
	ctx, cancel := context.WithTimeout(t.Context(), bound)
	defer cancel()
	_, err := p.Dialer(1, "u").Dial(ctx, tunnel.Dial{Target: tunnel.Target{Host: host, Port: 1}})
	return err
}

func kill(t *testing.T, p *Plugin) {
	t.Helper()
	if err := syscall.Kill(p.State().PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

// TestTroubleshootingOfPlugins: the page has what the failures of a plugin itself
// say, and all of them have the stage.
func TestTroubleshootingOfPlugins(t *testing.T) {
	var b strings.Builder
	b.WriteString("| reason | next | the log says | what to check |\n|---|---|---|---|\n")
	place := regexp.MustCompile(`\\\*[^*]+\\\*`)
	for _, f := range ownFailures {
		e := dialError(t, f.provoke(t))
		says := regexp.MustCompile("^" + place.ReplaceAllString(regexp.QuoteMeta(f.says), ".+") + "$")
		if e.Stage != pluginv1.Stage_STAGE_PLUGIN || !says.MatchString(e.Message) {
			t.Errorf("stage %s, %q; want %q", e.Stage.Text(), e.Message, f.says)
		}
		next := "no"
		if e.Retryable {
			next = "yes"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", e.Reason.Text(), next, f.says, e.Hint)
	}
	pagetest.Generated(t, troubleshooting, "plugin", b.String())
}
