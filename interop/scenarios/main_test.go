//go:build interop

// Package interop runs the examples: each is started as it is, as a process,
// with an emulated SAP BTP Connectivity behind it, and used by the ordinary
// clients of its protocol. It runs with "go test -tags interop".
package interop

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"
)

const (
	// patience bounds whatever a test waits for; building and installing have
	// their own.
	patience  = time.Minute
	setUpTime = 5 * time.Minute
	examples  = "../../examples"
)

// program is the daemon, built once.
var program string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "tunneld-scenarios-")
	if err == nil {
		err = prepare(dir)
	}
	code := 1
	if err == nil {
		code = m.Run()
	} else {
		fmt.Println("prepare:", err)
	}
	if err := errors.Join(os.RemoveAll(dir), goleak.Find()); err != nil && code == 0 {
		fmt.Println(err)
		code = 1
	}
	os.Exit(code)
}

func prepare(dir string) error {
	ctx, cancel := context.WithTimeout(context.Background(), setUpTime)
	defer cancel()
	program = filepath.Join(dir, "tunneld")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", program, "../../cmd/tunneld").CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	return nil
}

// tool returns the path of a program that a scenario needs, and skips the test
// where it is missing, except in the continuous integration.
func tool(t *testing.T, name string) string {
	t.Helper()
	for _, candidate := range []string{name, "/usr/sbin/" + name} {
		if path, err := exec.LookPath(candidate); err == nil {
			return path
		}
	}
	missing(t, name)
	return ""
}

func missing(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s is missing", what)
	}
	t.Skipf("%s is missing", what)
}

// output runs a program with patience and returns what it printed.
func output(t *testing.T, cmd *exec.Cmd) (string, error) {
	t.Helper()
	timer := time.AfterFunc(patience, func() {
		if cmd.Process != nil {
			_ = cmd.Process.Kill() // it has ended meanwhile at worst
		}
	})
	defer timer.Stop()
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// mustOutput is output of a program that has to succeed.
func mustOutput(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	out, err := output(t, cmd)
	if err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, out)
	}
	return out
}
