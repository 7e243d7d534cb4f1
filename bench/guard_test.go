package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestMain lets the test program be any of bench's parts, or all of it.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == fakePart {
		os.Exit(forwardAsTold(os.Args[2:]))
	}
	if len(os.Args) > 1 && !strings.HasPrefix(os.Args[1], "-test.") {
		os.Exit(run())
	}
	os.Exit(m.Run())
}

// bench starts a run whose temporary folder is dir. What comes from errs ends
// with the last process that the run has started.
func bench(t *testing.T, dir string, stdout *os.File, args ...string) (cmd *exec.Cmd, errs *bufio.Reader) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	if err := r.SetReadDeadline(time.Now().Add(5 * time.Minute)); err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd = exec.Command(exe, args...)
	cmd.Env = append(os.Environ(), "TMPDIR="+dir)
	cmd.Stdout, cmd.Stderr = stdout, w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	return cmd, bufio.NewReader(r)
}

// leavesNothing waits until all processes have ended and returns what they said.
func leavesNothing(t *testing.T, dir string, cmd *exec.Cmd, errs io.Reader) string {
	t.Helper()
	said, err := io.ReadAll(errs)
	if err != nil {
		t.Errorf("something still runs: %v", err)
	}
	_ = cmd.Wait() // how it ended is the caller's to ask
	left, err := os.ReadDir(dir)
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	return string(said)
}

// TestRunLeavesNothing ends a run in the middle, in ways that it may or may not
// see coming.
func TestRunLeavesNothing(t *testing.T) {
	for _, s := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM, syscall.SIGINT} {
		t.Run(s.String(), func(t *testing.T) {
			script := filepath.Join(t.TempDir(), "tunneld")
			if err := os.WriteFile(script, []byte("#!/bin/sh\necho up $$ >&2\nexec sleep 1000\n"), 0o700); err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			cmd, errs := bench(t, dir, nil, "-rows", "tunneld", "-tunneld", script)
			line, err := errs.ReadString('\n')
			if err != nil {
				t.Fatalf("%q, %v", line, err)
			}
			var pid int
			if _, err := fmt.Sscanf(line, "up %d\n", &pid); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			if err := cmd.Process.Signal(s); err != nil {
				t.Fatal(err)
			}
			leavesNothing(t, dir, cmd, errs)
			if t.Failed() {
				_ = syscall.Kill(-pid, syscall.SIGKILL)
			}
		})
	}
}

// TestRunWhoseReaderIsGone has nobody read the results, as behind head(1).
func TestRunWhoseReaderIsGone(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	_ = r.Close()
	defer w.Close()
	dir := t.TempDir()
	cmd, errs := bench(t, dir, w, "-rows", "none", "-only", "nothing", "-tunneld", "none")
	if said := leavesNothing(t, dir, cmd, errs); !strings.Contains(said, "broken pipe") || cmd.ProcessState.ExitCode() != 1 {
		t.Errorf("%v, %q", cmd.ProcessState, said)
	}
}
