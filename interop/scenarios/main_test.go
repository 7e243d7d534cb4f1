//go:build interop

// Package interop runs the examples: each is started as it is, as a process,
// with an emulated SAP BTP Connectivity behind it, and used by the ordinary
// clients of its protocol. It runs with "go test -tags interop".
package interop

import (
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/proctest"
)

const (
	// patience bounds whatever a test waits for; building and installing have
	// their own.
	patience  = time.Minute
	setUpTime = 5 * time.Minute
	examples  = "../../examples"
)

func TestMain(m *testing.M) { os.Exit(proctest.Main(m)) }

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
