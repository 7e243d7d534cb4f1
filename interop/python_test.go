//go:build interop

package interop

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/tunneld/tunneld/internal/proctest"
)

// TestPython generates the stubs of the example without an SDK by the commands of its
// README, and runs it.
func TestPython(t *testing.T) {
	const example, python = "../examples/plugins/python", "/usr/bin/python3"
	if out, err := exec.Command("sh", "-c", python+" -c 'import grpc' && command -v protoc /usr/bin/grpc_python_plugin").CombinedOutput(); err != nil {
		t.Logf("%v\n%s", err, out)
		proctest.Missing(t, "gRPC for Python")
	}
	proto, err := filepath.Abs("../proto")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	plugin := filepath.Join(dir, "plugin.py")
	if err := os.WriteFile(plugin, []byte(replaced(t, filepath.Join(example, "plugin.py"))), 0o700); err != nil {
		t.Fatal(err)
	}
	readme := replaced(t, filepath.Join(example, "README.md"), "../../../proto", proto)
	command := regexp.MustCompile(`(?m)^protoc (.*\\\n)*.*$`).FindString(readme)
	if command == "" {
		t.Fatalf("no protoc in\n%s", readme)
	}
	generate := exec.Command("sh", "-c", command)
	generate.Dir = dir
	if out, err := generate.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
	page := replaced(t, "../docs/plugin-protocol.md")
	line := strings.Join(strings.Fields(strings.NewReplacer(proto, "proto", "\\\n", "").Replace(command)), " ")
	if !strings.Contains(page, "\n"+line+"\n") {
		t.Errorf("the page of the protocol has another command than %q", line)
	}
	config := replaced(t, filepath.Join(example, "kit.hcl"), "COMMAND", plugin)
	noName := strings.Repeat("a", 64) + ".corp:7001" // Python has an exception of its own for it
	for name, refused := range map[string][]string{"port": nil, "name": {"--refused", noName}} {
		t.Run("refused "+name, func(t *testing.T) {
			r := kit(t, config, append([]string{"--upstream", "pydirect.kit", "--target", freePort()}, refused...)...)
			wantResults(t, r, "direct", map[string]string{"far-end-death": "skipped", "secrets": "skipped"})
		})
	}
}
