//go:build interop

package interop

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestHTTPConnect builds the example of a plugin's author, a module of its own,
// and runs it against tinyproxy, which ends both directions when one ends.
func TestHTTPConnect(t *testing.T) {
	tinyproxy, err := exec.LookPath("tinyproxy")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("tinyproxy is not installed")
		}
		t.Skip("tinyproxy is not installed")
	}
	const example = "../examples/plugins/httpconnect"
	dir := t.TempDir()
	plugin := filepath.Join(dir, "tunneld-plugin-httpconnect")
	build := exec.Command("go", "build", "-o", plugin, ".")
	build.Dir = example
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", example, err, out)
	}
	text, err := os.ReadFile(filepath.Join(example, "kit.hcl"))
	if err != nil {
		t.Fatal(err)
	}
	proxy := freePort()
	config := strings.ReplaceAll(string(text), "COMMAND", plugin)
	written := value(t, config, "proxy")
	config = strings.ReplaceAll(config, written, proxy)
	host, port, err := net.SplitHostPort(proxy)
	if err != nil {
		t.Fatal(err)
	}
	settings := fmt.Sprintf("Listen %s\nPort %s\nAllow 127.0.0.0/8\nMaxClients 200\nTimeout 600\nBasicAuth %s %s\n",
		host, port, value(t, config, "username"), value(t, config, "password"))
	file := filepath.Join(dir, "tinyproxy.conf")
	if err := os.WriteFile(file, []byte(settings), 0o600); err != nil {
		t.Fatal(err)
	}
	upstream := regexp.MustCompile(`upstream\s+"(\w+)"\s+"(\w+)"`).FindStringSubmatch(config)
	if upstream == nil {
		t.Fatalf("no upstream in\n%s", config)
	}
	r := kit(t, config, "--upstream", upstream[1]+"."+upstream[2], "--target", freePort(), "--far-end-lacks", "half-close",
		"--", tinyproxy, "-d", "-c", file)
	wantResults(t, r, "direct", map[string]string{"half-close-client": "skipped", "half-close-target": "skipped"})
}

// value finds an attribute's text in a configuration.
func value(t *testing.T, config, name string) string {
	t.Helper()
	m := regexp.MustCompile(`(?m)^\s*` + name + `\s*=\s*"([^"]+)"`).FindStringSubmatch(config)
	if m == nil {
		t.Fatalf("no %s in\n%s", name, config)
	}
	return m[1]
}
