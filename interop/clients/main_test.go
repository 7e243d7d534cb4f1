//go:build interop

// Package clients has clients that were not written here come to listeners: users of an
// htpasswd file, which Apache's htpasswd writes, log in, and whoever is refused reads why in
// the client's own words.
package clients

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/proctest"
)

const patience = time.Minute

func TestMain(m *testing.M) {
	status := proctest.Main(m)
	if err := os.RemoveAll(classes); err != nil {
		fmt.Fprintln(os.Stderr, err)
		status = max(status, 1)
	}
	os.Exit(status)
}

// said is what a client prints, without the space around it; it may fail, but has to end.
func said(t *testing.T, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	// Proxies and languages of whoever runs the test are not the clients'.
	cmd.Env = []string{"LC_ALL=C", "PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME")}
	cmd.WaitDelay = patience
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) || ctx.Err() != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// python is the path of the interpreter itself: what $PATH has may be a script that searches
// for it each time.
func python(t *testing.T) string {
	t.Helper()
	return said(t, proctest.Tool(t, "python3"), "-c", "import sys; print(sys.executable)")
}

var classes string // the folder with Client.java compiled, until the tests have run

// openJDK returns the command that runs Client but for its arguments.
func openJDK(t *testing.T) []string {
	t.Helper()
	javac := proctest.Tool(t, "javac")
	if classes == "" {
		dir, err := os.MkdirTemp("", "tunneld-classes-")
		if err != nil {
			t.Fatal(err)
		}
		classes = dir
		if out := said(t, javac, "-d", classes, "Client.java"); out != "" {
			t.Fatal(out)
		}
	}
	return []string{proctest.Tool(t, "java"), "-XX:TieredStopAtLevel=1", "-cp", classes}
}

// node is the path of Node, once the libraries are installed.
func node(t *testing.T) string {
	t.Helper()
	if _, err := os.Stat("node_modules"); err != nil {
		if out, err := exec.CommandContext(t.Context(), proctest.Tool(t, "npm"), "ci").CombinedOutput(); err != nil {
			t.Fatalf("npm ci: %v\n%s", err, out)
		}
	}
	return proctest.Tool(t, "node")
}
