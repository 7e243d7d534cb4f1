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

// unit is the example, as systemd-analyze can check it here: with a program
// that exists, and with a type that an old systemd knows.
func unit(t *testing.T) (path string) {
	t.Helper()
	text := readUnit(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	text = strings.Replace(text, "ExecStart=/usr/bin/tunneld ", "ExecStart="+exe+" ", 1)
	out, err := analyze(t, "--version")
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	version := regexp.MustCompile(`^systemd (\d+)`).FindStringSubmatch(out)
	if version == nil {
		t.Fatalf("the version of systemd in %q", out)
	}
	if n, err := strconv.Atoi(version[1]); err != nil || n < 253 {
		text = strings.Replace(text, "\nType=notify-reload\n", "\nType=notify\n", 1)
	}
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

// TestUnitFitsTheDaemon: its command line is one of ours, and its times are
// longer than the daemon's.
func TestUnitFitsTheDaemon(t *testing.T) {
	text := readUnit(t)
	value := func(name string) string {
		m := regexp.MustCompile(`(?m)^`+name+`=(.*)$`).FindAllStringSubmatch(text, -1)
		if len(m) != 1 {
			t.Fatalf("%d lines for %s", len(m), name)
		}
		return m[0][1]
	}
	if got := value("Type"); got != "notify-reload" {
		t.Errorf("type %s", got)
	}
	command := strings.Fields(value("ExecStart"))
	cmd, rest, err := newRoot(nil, nil, nil).Find(command[1:])
	if err != nil || cmd.Name() != "run" {
		t.Fatalf("%q: %v, %v", command, cmd, err)
	}
	if err := cmd.ParseFlags(rest); err != nil || cmd.Flag("config").Value.String() != defaultConfig {
		t.Errorf("%q: %v", command, err)
	}
	if got := value("RestartPreventExitStatus"); got != strconv.Itoa(exitInvalid) {
		t.Errorf("no restart after status %s", got)
	}
	if got := value("LimitCORE"); got != "0" {
		t.Errorf("core files of %s bytes", got)
	}
	if got := value("StartLimitIntervalSec"); got != "0" {
		t.Errorf("tries are counted over %s", got)
	}
	const shutdownTimeout = 30 * time.Second // the default of daemon.shutdown_timeout
	if stop, err := time.ParseDuration(value("TimeoutStopSec")); err != nil || stop <= shutdownTimeout {
		t.Errorf("TimeoutStopSec: %v, %v", stop, err)
	}
}
