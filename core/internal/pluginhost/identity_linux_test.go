package pluginhost

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/tunneld/tunneld/core/internal/plugintest"
)

// TestIdentityFollowsTheProcess: a plugin that has died and was started again is what
// its files are by now, and no reload has to replace it.
func TestIdentityFollowsTheProcess(t *testing.T) {
	dir := t.TempDir()
	link, err := plugintest.Link(dir, rawName)
	if err != nil {
		t.Fatal(err)
	}
	script := filepath.Join(dir, "script")
	write := func(comment string) {
		t.Helper()
		if err := os.WriteFile(script, fmt.Appendf(nil, "#!/bin/sh\n# %s\nexec %s\n", comment, link), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write("one")
	s := hasty(Spec{Name: rawName, Command: []string{"/bin/sh", script}})
	h := newHost(t, nil)
	p := h.start(t, s)
	first := p.Identity()
	if first != Identity(t.Context(), s) {
		t.Error("another identity for the same files")
	}
	write("two")
	if p.Identity() != first || Identity(t.Context(), s) == first {
		t.Error("the identity is not that of the process")
	}
	if err := syscall.Kill(p.State().PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	h.await(t, "a restart", func(s State) bool { return s.Restarts == 1 && s.Status == StatusRunning })
	if p.Identity() != Identity(t.Context(), s) {
		t.Error("the identity is not that of the new process")
	}
}

// TestIdentity: what cannot be read counts, too.
func TestIdentity(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	seen := map[string]string{}
	for what, s := range map[string]Spec{
		"a program":        {Command: []string{file}},
		"none":             {Command: []string{file + "-missing"}},
		"an argument":      {Command: []string{file, file}},
		"no regular files": {Command: []string{file, dir, fifo, "-x"}},
		"a file":           {Command: []string{file}, Files: map[string]string{file: "0"}},
		"a missing file":   {Command: []string{file}, Files: map[string]string{file + "-missing": "0"}},
		"bundled":          {Bundled: true},
	} {
		id := Identity(t.Context(), s)
		if other, twice := seen[id]; twice {
			t.Errorf("%s has the identity of %s", what, other)
		}
		seen[id] = what
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	s := Spec{Command: []string{file}}
	if Identity(ended, s) == Identity(t.Context(), s) {
		t.Error("what was broken off has the file's identity")
	}
}

// TestIdentityOfALargeFile: it is not read to its end, and its time counts.
func TestIdentityOfALargeFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "large")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, 8<<40); err != nil {
		t.Skipf("no file of 8 TiB here: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	s := Spec{Command: []string{"/nonexistent/x", file}}
	first := Identity(ctx, s)
	if err := os.Chtimes(file, time.Time{}, time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if Identity(ctx, s) == first || ctx.Err() != nil {
		t.Errorf("%s, %v", first, ctx.Err())
	}
}
