package proctest

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// installTime bounds what npm may take to fetch packages.
const installTime = 5 * time.Minute

var installing sync.Mutex

// Node returns the path of Node. The packages that package-lock.json pins in the test's folder
// are installed then.
func Node(t testing.TB) string {
	t.Helper()
	node, npm := Tool(t, "node"), Tool(t, "npm")
	installing.Lock()
	defer installing.Unlock()
	pinned, err := os.Stat("package-lock.json")
	if err != nil {
		t.Fatal(err)
	}
	// npm writes this one last.
	done, err := os.Stat(filepath.Join("node_modules", ".package-lock.json"))
	if err == nil && !done.ModTime().Before(pinned.ModTime()) {
		return node
	}
	ctx, cancel := context.WithTimeout(t.Context(), installTime)
	defer cancel()
	if out, err := exec.CommandContext(ctx, npm, "ci").CombinedOutput(); err != nil {
		t.Fatalf("npm ci: %v\n%s", err, out)
	}
	return node
}
