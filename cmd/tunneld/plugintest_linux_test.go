package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tunneld/tunneld/plugins/sdk/sdktest/fixture"
)

// kitRun runs the kit against a plugin of a third party.
func kitRun(t *testing.T, body string, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	// The kernel gives none of these to a connection.
	target := fmt.Sprintf("127.0.0.1:%d", 15000+rand.IntN(15000))
	file := filepath.Join(t.TempDir(), "kit.hcl")
	config := thirdParty(t, fixture.RelayName, "") + fmt.Sprintf("upstream %q \"kit\" {\n%s\n}\n", fixture.RelayName, body)
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	args = append([]string{"plugin", "test", "--config", file, "--upstream", fixture.RelayName + ".kit", "--target", target}, args...)
	status = run(t.Context(), args, strings.NewReader(""), &out, &errs)
	return status, out.String(), errs.String()
}

// TestPluginTest: a plugin that conforms, for people and for programs.
func TestPluginTest(t *testing.T) {
	status, stdout, stderr := kitRun(t, "secret = \"not in any log\"")
	if status != exitOK || stderr != "" {
		t.Errorf("status %d, stderr %s", status, stderr)
	}
	for _, want := range []string{"plugin fixrelay 1.0.0 (/", "path relay", "\n  pass      bulk ", "64 MiB each way", "\nfixrelay conforms: "} {
		if !strings.Contains(stdout, want) {
			t.Errorf("without %q:\n%s", want, stdout)
		}
	}
}

// TestPluginTestFails: what does not hold makes status 1, in JSON as well.
func TestPluginTestFails(t *testing.T) {
	status, stdout, stderr := kitRun(t, "fail {\n reason = \"denied\"\n hint = \"ask the owner\"\n}", "--json", "--timeout", "3s")
	if status != exitFailed || stderr != "" {
		t.Errorf("status %d, stderr %s", status, stderr)
	}
	var report struct {
		Version int
		OK      bool
		Checks  []struct{ ID, Result, Detail, Fix string }
		Summary map[string]int
	}
	if err := json.Unmarshal([]byte(stdout), &report); err != nil {
		t.Fatalf("%v\n%s", err, stdout)
	}
	if report.Version != 1 || report.OK || report.Summary["fail"] != 1 {
		t.Errorf("%s", stdout)
	}
	for _, c := range report.Checks {
		switch {
		case c.ID == "dial" && (c.Result != "fail" || !strings.Contains(c.Detail, "ask the owner") || c.Fix == ""):
			t.Errorf("%+v", c)
		case c.ID == "echo" && (c.Result != "skipped" || c.Detail != "no tunnel can be made"):
			t.Errorf("%+v", c)
		}
	}
}

// TestPluginTestMisused: a command line that cannot be understood makes status 2, a
// wrong configuration 78.
func TestPluginTestMisused(t *testing.T) {
	for name, tc := range map[string]struct {
		body string
		args []string
		want string
	}{
		"a value of a wrong type": {"prefetch = \"much\"", nil, "prefetch"},
		"no such upstream":        {"", []string{"--upstream", "fixrelay.other"}, `has no upstream "fixrelay" "other"`},
		"a target without a port": {"", []string{"--target", "echo.corp"}, `"echo.corp" is not host:port`},
		"an unknown lack":         {"", []string{"--far-end-lacks", "sense"}, `cannot lack "sense"`},
		"no timeout":              {"", []string{"--timeout", "0s"}, "--timeout has to be more than 0"},
		"an argument too many":    {"", []string{"acme-server"}, "the far end's command comes after --"},
		"an unknown flag":         {"", []string{"--quick"}, "unknown flag"},
	} {
		t.Run(name, func(t *testing.T) {
			status, stdout, stderr := kitRun(t, tc.body, tc.args...)
			want := exitUsage
			if tc.body != "" {
				want = exitInvalid
			}
			if status != want || stdout != "" || !strings.Contains(stderr, tc.want) {
				t.Errorf("status %d, stdout %q, stderr %q", status, stdout, stderr)
			}
		})
	}
	var out, errs bytes.Buffer
	if status := run(t.Context(), []string{"plugin", "test"}, strings.NewReader(""), &out, &errs); status != exitUsage || !strings.Contains(errs.String(), "--config is required") {
		t.Errorf("status %d, stderr %q", status, errs.String())
	}
}
