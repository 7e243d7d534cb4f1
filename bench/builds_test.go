package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestFindBuild has a repository of two commits, and a change that is not committed.
func TestFindBuild(t *testing.T) {
	repo := t.TempDir()
	main := filepath.Join(repo, "cmd", "tunneld", "main.go")
	write := func(path, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run := func(args ...string) {
		t.Helper()
		args = append([]string{"-C", repo, "-c", "user.name=test", "-c", "user.email=test@example.invalid", "-c", "commit.gpgsign=false"}, args...)
		if _, err := git(t.Context(), nil, args...); err != nil {
			t.Fatal(err)
		}
	}
	program := func(says string) string { return "package main\n\nfunc main() { print(\"" + says + "\") }\n" }
	run("init", "--quiet", "--initial-branch=main")
	write(filepath.Join(repo, "go.mod"), "module github.com/tunneld/tunneld\n\ngo 1.26\n")
	for _, says := range []string{"first", "second"} {
		write(main, program(says))
		run("add", ".")
		run("commit", "--quiet", "-m", says)
	}
	write(main, program("not committed"))
	t.Chdir(filepath.Join(repo, "cmd"))
	status := func() string {
		t.Helper()
		out, err := git(t.Context(), nil, "-C", repo, "status", "--porcelain")
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	before := status()
	built := ""
	for _, c := range []struct{ name, says string }{
		{"HEAD~", "first"}, {"main", "second"}, {repo, "not committed"},
	} {
		b, err := findBuild(t.Context(), c.name, t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		out, err := exec.CommandContext(t.Context(), b.tunneld).CombinedOutput()
		if err != nil || string(out) != c.says {
			t.Errorf("%s: %q, %v; want %q", c.name, out, err, c.says)
		}
		if (b.Commit == "") != (c.name == repo) {
			t.Errorf("%s: commit %q", c.name, b.Commit)
		}
		built = b.tunneld
	}
	if b, err := findBuild(t.Context(), built, t.TempDir()); err != nil || b.tunneld != built {
		t.Errorf("a program: %+v, %v", b, err)
	}
	if _, err := findBuild(t.Context(), "nowhere", t.TempDir()); err == nil || !strings.Contains(err.Error(), "nor a git revision") {
		t.Errorf("%v", err)
	}
	if after := status(); after != before {
		t.Errorf("the repository has changed: %q, %q before", after, before)
	}
}
