//go:build interop

package interop

import (
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
	proxy := freePort()
	host, port, err := net.SplitHostPort(proxy)
	if err != nil {
		t.Fatal(err)
	}
	// The two files as they are, but for the address that they have to agree on.
	const written, writtenHost, writtenPort = "127.0.0.1:8888", "Listen 127.0.0.1\n", "Port 8888\n"
	config := replaced(t, filepath.Join(example, "kit.hcl"), "COMMAND", plugin, written, proxy)
	settings := replaced(t, filepath.Join(example, "tinyproxy.conf"), writtenHost, "Listen "+host+"\n", writtenPort, "Port "+port+"\n")
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

// replaced reads a file and replaces texts that it has to have, given in pairs.
func replaced(t *testing.T, file string, pairs ...string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	for i := 0; i < len(pairs); i += 2 {
		if !strings.Contains(text, pairs[i]) {
			t.Fatalf("no %q in\n%s", pairs[i], text)
		}
		text = strings.ReplaceAll(text, pairs[i], pairs[i+1])
	}
	return text
}
