package version

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// checkout is a repository of its own. Its program is a small one, which says its
// version as the daemon does.
type checkout struct{ dir string }

const program = `package main

import (
	"fmt"

	"github.com/tunneld/tunneld/internal/version"
)

func main() { fmt.Println("tunneld", version.Text()) }
`

func newCheckout(t *testing.T) checkout {
	t.Helper()
	c := checkout{t.TempDir()}
	for _, name := range []string{"go.mod", "go.sum", ".gitignore", "README.md", "CHANGELOG.md", "LICENSE", "SECURITY.md", "scripts/release.sh", "internal/version/version.go"} {
		b, err := os.ReadFile(filepath.Join("../..", name))
		if err != nil {
			t.Fatal(err)
		}
		c.write(t, name, b)
	}
	c.write(t, "cmd/tunneld/main.go", []byte(program))
	c.git(t, "init", "-q")
	c.commit(t)
	return c
}

func (c checkout) write(t *testing.T, name string, b []byte) {
	t.Helper()
	path := filepath.Join(c.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o755); err != nil {
		t.Fatal(err)
	}
}

// run returns what a command prints, and its error.
func (c checkout) run(t *testing.T, name string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = c.dir
	cmd.Env = append(os.Environ(), "GOFLAGS=-buildvcs=true", "RELEASE_TARGETS=linux/"+runtime.GOARCH, "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (c checkout) must(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := c.run(t, name, args...)
	if err != nil {
		t.Fatalf("%s %s: %v: %s", name, args, err, out)
	}
	return out
}

func (c checkout) git(t *testing.T, args ...string) string {
	t.Helper()
	return c.must(t, "git", append([]string{"-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false", "-c", "tag.gpgsign=false"}, args...)...)
}

func (c checkout) commit(t *testing.T) {
	t.Helper()
	c.git(t, "add", "-A")
	c.git(t, "commit", "-qm", "as it is")
}

// edit replaces a text of a file.
func (c checkout) edit(t *testing.T, name, old, with string) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(c.dir, name))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(b, []byte(old)) {
		t.Fatalf("%s has no %q", name, old)
	}
	c.write(t, name, bytes.Replace(b, []byte(old), []byte(with), 1))
}

// version builds the program and asks it.
func (c checkout) version(t *testing.T) string {
	t.Helper()
	built := filepath.Join(t.TempDir(), "tunneld")
	c.must(t, "go", "build", "-o", built, "./cmd/tunneld")
	return strings.Fields(c.must(t, built))[1]
}

// TestBuildTellsItsVersion: the commit, and whether the files are its own.
func TestBuildTellsItsVersion(t *testing.T) {
	c := newCheckout(t)
	want := Next + "-dev+" + strings.TrimSpace(c.git(t, "rev-parse", "--short=12", "HEAD"))
	if got := c.version(t); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	c.edit(t, "README.md", "tunneld", "Tunneld")
	if got := c.version(t); got != want+".modified" {
		t.Errorf("changed: %s, want %s.modified", got, want)
	}
	c.git(t, "checkout", "-q", "README.md")
	c.git(t, "tag", "v0.7.8")
	if got := c.version(t); got != "0.7.8" {
		t.Errorf("at a tag: %s", got)
	}
}

// TestRelease: nothing is released that was not made ready, and what is released says
// what it is.
func TestRelease(t *testing.T) {
	c := newCheckout(t)
	refused := func(says string, args ...string) {
		t.Helper()
		if out, err := c.run(t, "scripts/release.sh", args...); err == nil || !strings.Contains(out, says) {
			t.Errorf("%s: %v, %s; want %q", args, err, out, says)
		}
		if _, err := os.Stat(filepath.Join(c.dir, "dist")); err == nil {
			t.Error("something was built")
		}
	}
	refused("three numbers")
	refused("three numbers", "v"+Next)
	refused("another Next", "97.0.0")
	c.edit(t, "internal/version/version.go", `"`+Next+`"`, `"98.0.0"`)
	refused("not committed", "98.0.0")
	c.commit(t)
	refused("HEAD is not v98.0.0", "98.0.0")
	c.git(t, "tag", "v98.0.0")
	refused("CHANGELOG.md has nothing", "98.0.0")
	c.git(t, "tag", "-d", "v98.0.0")
	c.edit(t, "CHANGELOG.md", "## Unreleased\n", "## Unreleased\n\n## 98.0.0 (2030-01-01)\n\n")
	c.commit(t)
	c.git(t, "tag", "-am", "98.0.0", "v98.0.0")

	c.must(t, "scripts/release.sh", "98.0.0")
	sums := c.must(t, "sh", "-c", "cd dist && sha256sum -c SHA256SUMS")
	name := "tunneld_98.0.0_linux_" + runtime.GOARCH
	if sums != name+".tar.gz: OK\n" {
		t.Errorf("checksums: %s", sums)
	}
	c.must(t, "tar", "-xzf", "dist/"+name+".tar.gz")
	if got := c.must(t, "./"+name+"/tunneld"); got != "tunneld 98.0.0\n" {
		t.Errorf("it says %s", got)
	}
	if got := c.must(t, "ls", name); got != "CHANGELOG.md\nLICENSE\nREADME.md\nSECURITY.md\ntunneld\n" {
		t.Errorf("the archive holds %s", got)
	}
}
