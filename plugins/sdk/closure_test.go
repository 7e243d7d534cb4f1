package sdk_test

import (
	"os/exec"
	"strings"
	"testing"
)

// What an author's binary takes in with the SDK.
func TestImportClosure(t *testing.T) {
	const most = 170
	out, err := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	packages := strings.Fields(string(out))
	if len(packages) >= most {
		t.Errorf("%d packages besides the standard library, want fewer than %d", len(packages), most)
	}
	for _, p := range packages {
		for _, banned := range []string{"hashicorp/hcl", "zclconf/go-cty", "prometheus", "spf13", "tunneld/core", "tunneld/cmd"} {
			if strings.Contains(p, banned) {
				t.Errorf("the SDK depends on %s", p)
			}
		}
	}
}
