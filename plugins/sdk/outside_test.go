package sdk_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestOutsideModule is a plugin of another module, which requires this one and nothing
// else: it builds, and takes in no more modules and packages than are told here.
func TestOutsideModule(t *testing.T) {
	const (
		mostLinked   = 18  // modules in the program, this one included
		mostListed   = 84  // modules that go list -m all names, most of them for tests of others
		mostPackages = 170 // besides those of the standard library
	)
	checkout, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	version := goIn(t, checkout, "list", "-m", "-f", "{{.GoVersion}}")
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	copied := func(to string, from ...string) {
		b, err := os.ReadFile(filepath.Join(append([]string{checkout}, from...)...))
		if err != nil {
			t.Fatal(err)
		}
		write(to, string(b))
	}
	copied("main.go", "examples", "plugins", "httpconnect", "main.go")
	copied("go.sum", "go.sum")
	write("go.mod", "module example.com/outside\n\ngo "+version+"\nrequire github.com/tunneld/tunneld v0.0.0\n\nreplace github.com/tunneld/tunneld => "+checkout+"\n")

	goIn(t, dir, "build", "-o", "plugin", ".")
	linked := strings.Count(goIn(t, dir, "version", "-m", "plugin"), "\n\tdep\t")
	packages := strings.Fields(goIn(t, dir, "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", "."))
	t.Logf("%d modules in the program, %d packages besides the standard library", linked, len(packages))
	if linked == 0 || linked > mostLinked || len(packages) > mostPackages {
		t.Errorf("at most %d modules and %d packages are wanted", mostLinked, mostPackages)
	}
	// A build needs no go.mod file but those that go mod download gets; this does.
	if all, err := tryGoIn(t, dir, "list", "-m", "-f", "{{if not .Main}}{{.Path}}{{end}}", "all"); err != nil {
		t.Logf("the modules are not listed: %v", err)
	} else if listed := len(strings.Fields(all)); listed > mostListed {
		t.Errorf("%d modules listed, at most %d are wanted", listed, mostListed)
	} else {
		t.Logf("%d modules listed", listed)
	}
	for _, p := range packages {
		for _, banned := range []string{"hashicorp/hcl", "zclconf/go-cty", "prometheus", "spf13", "tunneld/core", "tunneld/cmd"} {
			if strings.Contains(p, banned) {
				t.Errorf("the SDK depends on %s", p)
			}
		}
	}

	cmd := exec.CommandContext(t.Context(), filepath.Join(dir, "plugin"))
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), `the plugin "httpconnect" of tunneld`) {
		t.Errorf("run by hand it says %q, %v", out, err)
	}
}

// goIn runs the go command in a folder, without a workspace or flags of the machine.
func goIn(t *testing.T, dir string, args ...string) string {
	t.Helper()
	out, err := tryGoIn(t, dir, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func tryGoIn(t *testing.T, dir string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=-mod=mod -buildvcs=false")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return string(out), nil
}
