package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
)

const unitPath = root + "/examples/systemd/tunneld.service"

// analyze runs systemd-analyze, which is missing on some machines but not where
// the continuous integration runs.
func analyze(t *testing.T, args ...string) (output string, err error) {
	t.Helper()
	path, err := exec.LookPath("systemd-analyze")
	if err != nil && os.Getenv("CI") == "" {
		t.Skip("there is no systemd-analyze here")
	}
	if err != nil {
		t.Fatal(err)
	}
	b, err := exec.CommandContext(t.Context(), path, args...).CombinedOutput()
	return string(b), err
}

// unit is the example, with a program that exists.
func unit(t *testing.T) (path string) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	text := strings.ReplaceAll(readUnit(t), "=/usr/bin/tunneld ", "="+exe+" ")
	path = filepath.Join(t.TempDir(), "tunneld.service")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func readUnit(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(unitPath)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestUnitIsValid: systemd has nothing to say of it, and rates its exposure
// below 2 of 10.
func TestUnitIsValid(t *testing.T) {
	path := unit(t)
	if out, err := analyze(t, "verify", "--man=no", path); err != nil || out != "" {
		t.Errorf("%v\n%s", err, out)
	}
	if out, err := analyze(t, "security", "--offline=yes", "--no-pager", "--threshold=20", path); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// unitValue is what the example has for a name.
func unitValue(t *testing.T, name string) string {
	t.Helper()
	m := regexp.MustCompile(`(?m)^`+name+`=(.*)$`).FindAllStringSubmatch(readUnit(t), -1)
	if len(m) != 1 {
		t.Fatalf("%d lines for %s", len(m), name)
	}
	return m[0][1]
}

// unitCommand is a command of the example: ours, with the flags that it has there.
func unitCommand(t *testing.T, name string) *cobra.Command {
	t.Helper()
	line := strings.Fields(unitValue(t, name))
	cmd, rest, err := newRoot(nil, nil, nil).Find(line[1:])
	if err == nil {
		err = cmd.ParseFlags(rest)
	}
	if err != nil || line[0] != "/usr/bin/tunneld" || cmd.Flag("config").Value.String() != defaultConfig {
		t.Fatalf("%q: %v", line, err)
	}
	return cmd
}

// TestUnitFitsTheDaemon: its command lines are ours, and its times are longer than
// those of the program.
func TestUnitFitsTheDaemon(t *testing.T) {
	for name, want := range map[string]string{
		"Type":                     "notify", // systemd 252 knows no notify-reload
		"RestartPreventExitStatus": strconv.Itoa(exitInvalid),
		"LimitCORE":                "0",
		"StartLimitIntervalSec":    "0",
	} {
		if got := unitValue(t, name); got != want {
			t.Errorf("%s=%s, want %s", name, got, want)
		}
	}
	if cmd := unitCommand(t, "ExecStart"); cmd.Name() != "run" {
		t.Errorf("it starts %q", cmd.Name())
	}
	reload := unitCommand(t, "ExecReload")
	if reload.Name() != "reload" {
		t.Errorf("it reloads by %q", reload.Name())
	}
	for name, least := range map[string]string{
		"TimeoutStartSec": reload.Flag("timeout").Value.String(), // bounds the reload, too
		"TimeoutStopSec":  "30s",                                 // the default of daemon.shutdown_timeout
	} {
		given, err := time.ParseDuration(unitValue(t, name))
		bound, boundErr := time.ParseDuration(least)
		if err != nil || boundErr != nil || given <= bound {
			t.Errorf("%s=%s, not more than %s: %v, %v", name, given, least, err, boundErr)
		}
	}
}

// TestReloadOfTheUnit: "systemctl reload" finds the daemon by what systemd tells both,
// ends once systemd has been told that the reload has, and fails with it.
func TestReloadOfTheUnit(t *testing.T) {
	m := startManager(t)
	dir, err := os.MkdirTemp("", "run")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	t.Setenv("RUNTIME_DIRECTORY", dir)
	p := runProgram(t, 1, direct(1, ""))
	m.want(t, "READY", "1 listener, generation 1")
	line := strings.Fields(strings.Replace(unitValue(t, "ExecReload"), defaultConfig, p.path, 1))
	for _, step := range []struct {
		config, said string
		status       int
	}{
		{direct(2, ""), "2 listeners, generation 2", exitOK},
		{"nonsense {", "2 listeners, generation 2, the last reload failed: ", exitInvalid},
	} {
		p.write(t, step.config)
		cmd := programCommand(t, line[1:]...)
		out, err := cmd.CombinedOutput()
		m.mark(t)
		if status := cmd.ProcessState.ExitCode(); status != step.status {
			t.Errorf("exit status %d, %v\n%s", status, err, out)
		}
		m.want(t, "RELOADING", "")
		m.want(t, "READY", step.said)
		m.want(t, "MARK", "")
	}
}
