package layers

import (
	"encoding/json"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"testing"
)

// TestDependenciesHaveAReason compares docs/dependencies.md with go.mod: each
// direct dependency has a row, and no row is of another.
func TestDependenciesHaveAReason(t *testing.T) {
	lookAtModule(t)
	out, err := exec.CommandContext(t.Context(), "go", "mod", "edit", "-json").Output()
	if err != nil {
		t.Fatal(err)
	}
	var mod struct {
		Require []struct {
			Path     string
			Indirect bool
		}
	}
	if err := json.Unmarshal(out, &mod); err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("../../docs/dependencies.md")
	if err != nil {
		t.Fatal(err)
	}
	var told []string
	for _, m := range regexp.MustCompile(`(?m)^\| ([a-z0-9.-]+\.[a-z]+/[^ ]+) \|`).FindAllStringSubmatch(string(page), -1) {
		told = append(told, m[1])
	}
	for _, r := range mod.Require {
		i := slices.Index(told, r.Path)
		if !r.Indirect && i < 0 {
			t.Errorf("docs/dependencies.md does not say what %s is for", r.Path)
		}
		if !r.Indirect && i >= 0 {
			told = slices.Delete(told, i, i+1)
		}
	}
	for _, path := range told {
		t.Errorf("docs/dependencies.md speaks of %s, which go.mod does not require directly", path)
	}
}
