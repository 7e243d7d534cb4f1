package conformance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tunneld/tunneld/core/conformance/internal/farend"
	"github.com/tunneld/tunneld/plugins/sdk/sdktest/fixture"
)

const password = "correct horse battery"

// freeTarget is a loopback target where nobody listens until the kit does: an
// address of its own, which no other run of the tests has either.
func freeTarget() string {
	host := netip.AddrFrom4([4]byte{127, byte(1 + rand.IntN(250)), byte(rand.IntN(256)), byte(1 + rand.IntN(250))})
	return netip.AddrPortFrom(host, 7007).String()
}

// options runs a plugin of the test binary with a body of its upstream's block.
func options(t *testing.T, plugin, mode, body string) Options {
	t.Helper()
	file := filepath.Join(t.TempDir(), "kit.hcl")
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// A process of the race detector takes a second to end otherwise.
	text := fmt.Sprintf("plugin %q {\n command = [%q, \"plugin\", \"serve\", %q]\n env = { KIT_MODE = %q, GORACE = \"atexit_sleep_ms=0\" }\n}\nupstream %q \"kit\" {\n%s\n}\n", plugin, exe, plugin, mode, plugin, body)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return Options{
		ConfigPath: file,
		Upstream:   plugin + ".kit",
		Version:    "test",
		Target:     freeTarget(),
		Timeout:    10 * time.Second,
		Bulk:       4 << 20,
		// What ends does so in time however busy the machine is.
		stop:     patience,
		hangUp:   patience,
		lateness: patience,
	}
}

// patience bounds what happens sooner or later; nothing is asserted about the time.
const patience = 30 * time.Second

func run1(t *testing.T, o Options) *Report {
	t.Helper()
	report, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

// results wants exactly these checks to have another result than pass, but for
// the far end's death: most tests have none that the kit could kill.
func results(t *testing.T, r *Report, want map[string]Result) {
	t.Helper()
	for _, c := range r.Checks {
		expected, other := want[c.ID]
		switch {
		case other:
		case c.ID == "far-end-death":
			expected = Skipped
		default:
			expected = Pass
		}
		if c.Result != expected {
			t.Errorf("%s is %s, not %s: %s", c.ID, c.Result, expected, c.Detail)
		}
		wantsHelp(t, c)
	}
	if len(r.Checks) != len(checks) {
		t.Errorf("%d checks were made of %d", len(r.Checks), len(checks))
	}
}

// wantsHelp wants of a failure what was seen and a way out. A plugin that does
// not start tells the way out itself, unless it ends without a word.
func wantsHelp(t *testing.T, c Check) {
	t.Helper()
	told := c.ID == "handshake" && !strings.Contains(c.Detail, "(exit status 8)")
	if c.Result == Fail && (c.Detail == "" || (c.Fix == "") != told) {
		t.Errorf("%s fails without a detail, or without a way out: %+v", c.ID, c)
	}
}

func rawBody(path string) string { return fmt.Sprintf("secret = %q\npath = %q", password, path) }

// TestGoodPlugins: nothing is found where nothing is wrong, on both paths, with
// the SDK and without.
func TestGoodPlugins(t *testing.T) {
	for _, tc := range []struct{ name, plugin, body, path string }{
		{"SDK, direct", fixture.DirectName, fmt.Sprintf("secret = %q", password), "direct"},
		{"SDK, relay", fixture.RelayName, fmt.Sprintf("secret = %q", password), "relay"},
		{"raw, direct", rawName, rawBody("direct"), "direct"},
		{"raw, relay", rawName, rawBody("relay"), "relay"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			r := run1(t, options(t, tc.plugin, "", tc.body))
			results(t, r, nil)
			if !r.OK || r.Plugin.Path != tc.path || r.Plugin.Name != tc.plugin || r.Plugin.Version == "" {
				t.Errorf("%+v", r)
			}
		})
	}
}

// TestIPv6Loopback: the kit serves an IPv6 address as it does the other.
func TestIPv6Loopback(t *testing.T) {
	t.Parallel()
	free, err := farend.Serve("[::1]:0")
	if err != nil {
		t.Skip(err)
	}
	o := options(t, rawName, "", rawBody("direct"))
	o.Target = netip.AddrPortFrom(free.IP(), 7007).String()
	if err := free.Close(); err != nil {
		t.Fatal(err)
	}
	r := run1(t, o)
	results(t, r, nil)
	if !r.OK || r.Target != o.Target || len(r.Notes) != 0 {
		t.Errorf("%+v", r)
	}
}

// brokenPlugins are the modes of the raw plugin, each with the check that finds
// it.
var brokenPlugins = []struct{ mode, check string }{
	{"prints first", "handshake"},
	{"exits", "handshake"},
	{"exits without a word", "handshake"},
	{"no version", "info"},
	{"a version of two lines", "info"},
	{"another summary each time", "info"},
	{"a name twice", "schema"},
	{"an empty name", "schema"},
	{"a bad name", "schema"},
	{"a default of another type", "schema"},
	{"no doc", "schema"},
	{"changes its mind", "validate"},
	{"takes what is not complete", "missing"},
	{"takes values of a wrong type", "types"},
	{"cannot dial", "dial"},
	{"hands a pipe over", "dial"},
	{"hands nothing over", "dial"},
	{"corrupts a sequence", "echo"},
	{"loses what comes first", "greeting"},
	{"does not wait for the target", "refused"},
	{"an error without a type", "refused"},
	{"an error without a stage", "refused"},
	{"an error of another reason", "refused"},
	{"an error without a word", "refused"},
	{"an error of one word", "refused"},
	{"does not answer", "refused"},
	{"keeps a descriptor of each refusal", "refused"},
	{"ignores the cancellation", "cancel"},
	{"dials in the validation", "pure"},
	{"opens a file in the validation", "pure"},
	{"ends both with the client", "half-close-client"},
	{"ends both with the target", "half-close-target"},
	{"says no END", "end"},
	{"an abort is a clean end", "abort"},
	{"a reset is a clean end", "target-reset"},
	{"loses a byte after a megabyte", "bulk"},
	{"32 at most", "dials"},
	{"keeps a descriptor of each tunnel", "descriptors"},
	{"an empty status", "status"},
	{"does not release", "generations"},
	{"replaces the generation", "generations"},
	{"takes a generation twice", "generations"},
	{"keeps a broken generation", "configure-whole"},
	{"drains nothing", "drain"},
	{"takes dials while it drains", "drain"},
	{"does not wait while it drains", "drain"},
	{"breaks tunnels off while it drains", "drain"},
	{"announces its end at the beginning", "kill"},
	{"a relay that says direct", "kill"},
	{"a killed one ends cleanly", "kill-target"},
	{"survives the daemon", "lifeline"},
	{"ends its relays cleanly without the daemon", "lifeline"},
	{"is deaf to SIGTERM", "stop"},
	{"sends a bad record", "records"},
	{"says END twice", "records"},
	{"announces the end after it", "records"},
	{"leaves a child", "processes"},
	{"leaves an escaped child", "processes"},
	{"logs its password", "secrets"},
	{"logs its password in base64", "secrets"},
	{"tells its password in a diagnostic", "secrets"},
	{"prints its password in an error", "secrets"},
	{"tells its password in an END", "secrets"},
}

// TestBrokenPlugins: each mistake is found by its own check and by no other.
func TestBrokenPlugins(t *testing.T) {
	type outcome struct {
		report *Report
		err    error
	}
	// Runs mostly wait: more of them at once than there are processors.
	slots := make(chan struct{}, 10)
	outcomes := make([]chan outcome, len(brokenPlugins))
	for n, tc := range brokenPlugins {
		o := options(t, rawName, tc.mode, rawBody("relay")+"\n# probe")
		withProbe(t, o)
		switch tc.mode { // those that never end, or are late
		case "is deaf to SIGTERM":
			o.stop = time.Second
		case "survives the daemon":
			o.hangUp = time.Second
		case "announces the end after it":
			o.lateness = lateness
		}
		outcomes[n] = make(chan outcome, 1)
		go func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			report, err := Run(t.Context(), o)
			outcomes[n] <- outcome{report, err}
		}()
	}
	for n, tc := range brokenPlugins {
		got := <-outcomes[n]
		t.Run(tc.mode, func(t *testing.T) {
			if got.err != nil {
				t.Fatal(got.err)
			}
			if failed := got.report.Failed(); !slices.Equal(failed, []string{tc.check}) {
				t.Errorf("failed: %v, not %s", failed, tc.check)
			}
			for _, c := range got.report.Checks {
				if c.Result == Fail {
					t.Logf("%s: %s", c.ID, c.Detail)
				}
				if strings.Contains(c.Detail, password) {
					t.Errorf("%s tells the password: %s", c.ID, c.Detail)
				}
				wantsHelp(t, c)
			}
			if got.report.OK {
				t.Error("it is said to conform")
			}
		})
	}
}

// withProbe tells the plugin where the target is.
func withProbe(t *testing.T, o Options) {
	t.Helper()
	text, err := os.ReadFile(o.ConfigPath)
	if err != nil {
		t.Fatal(err)
	}
	text = bytes.Replace(text, []byte("# probe"), fmt.Appendf(nil, "probe = %q", o.Target), 1)
	if err := os.WriteFile(o.ConfigPath, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestEveryCheckFindsSomething: no check is without a plugin that it finds.
func TestEveryCheckFindsSomething(t *testing.T) {
	broken := slices.Concat(brokenPlugins, framedMistakes)
	for _, c := range checks {
		if !slices.ContainsFunc(broken, func(b struct{ mode, check string }) bool { return b.check == c.id }) {
			t.Errorf("no broken plugin fails at %s", c.id)
		}
	}
}

// TestFailuresTell: what the answer says and what the plugin logs of it stand
// with a failure, where the result alone does not tell.
func TestFailuresTell(t *testing.T) {
	for _, tc := range []struct{ plugin, mode, body, check, want string }{
		{fixture.RelayName, "", "panic_in = \"dial\"", "dial", "\nthe plugin logged: the plugin panicked: told to panic in dial"},
		{rawName, "an error of another reason", rawBody("relay"), "refused", "\nthe answer says: dial tcp 127."},
	} {
		t.Run(tc.check, func(t *testing.T) {
			t.Parallel()
			r := run1(t, options(t, tc.plugin, tc.mode, tc.body))
			i := slices.IndexFunc(r.Checks, func(c Check) bool { return c.ID == tc.check })
			if !slices.Equal(r.Failed(), []string{tc.check}) || !strings.Contains(r.Checks[i].Detail, tc.want) {
				t.Errorf("failed: %v, with %q", r.Failed(), r.Checks[i].Detail)
			}
		})
	}
}

// TestDeclared: what a protocol cannot do is no failure where the plugin says so.
func TestDeclared(t *testing.T) {
	t.Run("half-close", func(t *testing.T) {
		t.Parallel()
		r := run1(t, options(t, rawName, "cannot half-close", rawBody("relay")))
		results(t, r, map[string]Result{"half-close-client": Declared, "half-close-target": Declared})
		if !r.OK || !r.Plugin.NoHalfClose {
			t.Errorf("%+v", r)
		}
	})
	t.Run("the rest", func(t *testing.T) {
		t.Parallel()
		r := run1(t, options(t, rawName, "says what it cannot", rawBody("relay")))
		results(t, r, map[string]Result{
			"half-close-client": Declared, "half-close-target": Declared, "greeting": Declared, "refused": Declared,
			"abort": Declared, "kill-target": Declared,
		})
		if len(r.Plugin.Capabilities) != 3 {
			t.Errorf("%+v", r.Plugin)
		}
	})
}

// TestFarEndLacks: what the far end cannot do is skipped.
func TestFarEndLacks(t *testing.T) {
	t.Parallel()
	o := options(t, rawName, "a killed one ends cleanly", rawBody("relay"))
	o.Lacks, o.NoRefused = []string{LackHalfClose, LackReset}, true
	r := run1(t, o)
	results(t, r, map[string]Result{
		"half-close-client": Skipped, "half-close-target": Skipped, "refused": Skipped,
		"abort": Skipped, "target-reset": Skipped, "kill-target": Skipped,
	})
	if !r.OK || len(r.Notes) != 2 {
		t.Errorf("%+v", r)
	}
}

// TestAssumedEcho: where somebody else has the target, what can be checked with
// an echo service is checked.
func TestAssumedEcho(t *testing.T) {
	for _, path := range []string{"direct", "relay"} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			o := options(t, rawName, "", rawBody(path))
			echo, err := farend.Serve(o.Target)
			if err != nil {
				t.Fatal(err)
			}
			defer echo.Close()
			r := run1(t, o)
			results(t, r, map[string]Result{
				"greeting": Skipped, "refused": Skipped, "half-close-target": Skipped,
				"abort": Skipped, "target-reset": Skipped, "kill-target": Skipped,
			})
			if !r.OK || len(r.Notes) != 1 || !strings.Contains(r.Notes[0], "an echo service is assumed at "+o.Target) {
				t.Errorf("%+v", r)
			}
		})
	}
}

// TestUnsoughtSecrets: a secret that cannot be looked for is not one that is not
// there.
func TestUnsoughtSecrets(t *testing.T) {
	for name, tc := range map[string]struct {
		body, detail string
		notes        int
	}{
		"none":      {"", "sets no sensitive attribute", 0},
		"too short": {`secret = "abc"`, "give longer ones", 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := run1(t, options(t, fixture.DirectName, "", tc.body))
			results(t, r, map[string]Result{"secrets": Skipped})
			if c := r.Checks[len(r.Checks)-1]; c.ID != "secrets" || !strings.Contains(c.Detail, tc.detail) {
				t.Errorf("%s: %s", c.ID, c.Detail)
			}
			if len(r.Notes) != tc.notes || tc.notes == 1 && !strings.HasSuffix(r.Notes[0], ": secret") {
				t.Errorf("notes are %q", r.Notes)
			}
		})
	}
}

// TestInvalid: what is no fault of the plugin's makes no report.
func TestInvalid(t *testing.T) {
	good := options(t, rawName, "", rawBody("relay"))
	for name, tc := range map[string]struct {
		change func(o *Options)
		want   string
	}{
		"no such file":     {func(o *Options) { o.ConfigPath += ".none" }, "not valid"},
		"no type":          {func(o *Options) { o.Upstream = "kit" }, "is not TYPE.NAME"},
		"no such upstream": {func(o *Options) { o.Upstream = "raw.other" }, "has no upstream"},
		"no plugin":        {func(o *Options) { o.Upstream = "direct.kit" }, "has no plugin"},
		"not its values":   {func(o *Options) { *o = options(t, rawName, "", `secrets = "x"`) }, "not valid"},
		"serve elsewhere":  {func(o *Options) { o.Serve = "192.0.2.1:80" }, "not a loopback address"},
		"no such far end":  {func(o *Options) { o.FarEnd = []string{"/nonexistent/far-end"} }, "start the far end"},
	} {
		t.Run(name, func(t *testing.T) {
			o := good
			tc.change(&o)
			r, err := Run(t.Context(), o)
			if r != nil || err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%v, %v", r, err)
			}
		})
	}
}

// TestInterrupted: a run that is given up leaves nothing, and no report.
func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	o := options(t, rawName, "", rawBody("relay"))
	o.Progress = func(c Check) {
		if c.ID == "echo" {
			cancel()
		}
	}
	if r, err := Run(ctx, o); r != nil || !errors.Is(err, context.Canceled) {
		t.Errorf("%v, %v", r, err)
	}
}
