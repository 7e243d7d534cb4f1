// Package layers holds the test of the map in ARCHITECTURE.md: which package of
// the project may import which.
package layers

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/tunneld/tunneld/"

// allowed lists every package of the module and which others it may import; the layers
// are in the map in ARCHITECTURE.md. "P/..." stands for P and everything below it. Tests
// may import more: a far end to talk to, a fixture to run.
var allowed = map[string][]string{
	// Layer 0.
	"proto/tunneld/plugin/v1": {},
	"internal/pluginwire":     {},
	"internal/socks5":         {},
	"internal/sockopt":        {},
	"internal/bare":           {"internal/sockopt"},
	"internal/listenfds":      {},
	"internal/clienthello":    {},
	"internal/tlsconf":        {"internal/bare", "internal/follow", "internal/hostname", "internal/userfile"},
	"internal/fdtest":         {},
	"internal/logtest":        {},
	"internal/freeport":       {},
	"internal/userfile":       {},
	"internal/version":        {},
	"internal/follow":         {"internal/userfile"},
	"internal/logqueue":       {},
	"internal/cidr":           {},
	"internal/hostname":       {},
	"internal/nettest":        {"internal/emu", "internal/freeport"},
	"internal/neterr":         {"proto/tunneld/plugin/v1"},
	"internal/plaintext":      {},
	"internal/nodump":         {},
	"internal/pagetest":       {},
	"internal/proctest":       {},
	"internal/proxytest":      {"internal/nettest"},
	"internal/schema":         {"proto/tunneld/plugin/v1"},
	"internal/outbound":       {"internal/hostname", "internal/neterr", "internal/plaintext", "internal/sockopt", "internal/socks5", "internal/tlsconf", "internal/userfile", "proto/tunneld/plugin/v1"},
	"internal/layers":         {},
	"internal/emu":            {},
	"internal/plugincmd":      {"internal/logqueue", "internal/userfile"},
	"internal/cmdtest":        {},

	// What a plugin's author imports.
	"plugins/sdk":                 {"plugins/sdk/internal/...", "internal/hostname", "internal/pluginwire", "internal/sockopt", "internal/neterr", "internal/nodump", "internal/outbound", "internal/plaintext", "internal/schema", "internal/follow", "internal/tlsconf", "internal/userfile", "proto/tunneld/plugin/v1", "internal/bare"},
	"plugins/sdk/internal/...":    {"plugins/sdk/internal/...", "internal/bare", "internal/pluginwire", "internal/sockopt", "internal/neterr", "proto/tunneld/plugin/v1"},
	"plugins/sdk/sdktest":         {"plugins/sdk", "plugins/sdk/internal/...", "internal/pluginwire", "proto/tunneld/plugin/v1"},
	"plugins/sdk/sdktest/fixture": {"plugins/sdk"},

	// The plugins. None knows another, and none knows the core.
	"plugins/sapsocks":                             {"internal/hostname", "internal/version", "plugins/sdk", "internal/socks5", "internal/userfile"},
	"plugins/sapsocks/sapsocksemu":                 {"internal/emu", "internal/socks5"},
	"plugins/sapsocks/sapsockscmd":                 {"plugins/sapsocks/sapsocksemu", "internal/emu", "internal/plugincmd"},
	"plugins/sapsocks/cmd/tunneld-plugin-sapsocks": {"plugins/sapsocks", "plugins/sdk"},
	"plugins/websocks":                             {"internal/hostname", "internal/version", "plugins/sdk", "plugins/websocks/internal/...", "internal/socks5", "internal/tlsconf"},
	"plugins/websocks/internal/...":                {},
	"plugins/websocks/websocksemu":                 {"plugins/websocks/internal/...", "internal/emu", "internal/socks5"},
	"plugins/websocks/websockscmd":                 {"plugins/websocks/websocksemu", "internal/emu", "internal/plugincmd"},
	"plugins/websocks/cmd/tunneld-plugin-websocks": {"plugins/websocks", "plugins/sdk"},
	"plugins/soht":                                 {"internal/hostname", "internal/version", "plugins/sdk"},
	"plugins/soht/sohtemu":                         {"internal/emu"},
	"plugins/soht/sohtcmd":                         {"plugins/soht/sohtemu", "internal/emu", "internal/plugincmd"},
	"plugins/soht/cmd/tunneld-plugin-soht":         {"plugins/soht", "plugins/sdk"},
	"plugins/azrelay":                              {"internal/hostname", "internal/version", "plugins/sdk", "plugins/azrelay/internal/..."},
	"plugins/azrelay/internal/...":                 {"plugins/azrelay/internal/...", "internal/outbound", "internal/tlsconf"},
	"plugins/azrelay/azrelayemu":                   {"plugins/azrelay/internal/...", "internal/emu"},
	"plugins/azrelay/azrelaycmd":                   {"plugins/azrelay", "plugins/azrelay/azrelayemu", "plugins/sdk", "internal/emu", "internal/plugincmd"},
	"plugins/azrelay/cmd/tunneld-plugin-azrelay":   {"plugins/azrelay", "plugins/sdk"},

	// The core.
	"core/internal/tunnel":     {"internal/bare", "internal/hostname", "internal/sockopt", "proto/tunneld/plugin/v1"},
	"core/internal/hclbody":    {"internal/schema", "proto/tunneld/plugin/v1"},
	"core/internal/config":     {"core/diag", "internal/cidr", "internal/hostname", "internal/plaintext", "core/internal/auth", "core/internal/hclbody", "core/internal/listen", "core/internal/route", "core/internal/tunnel", "internal/schema", "internal/userfile", "proto/tunneld/plugin/v1", "internal/outbound", "internal/tlsconf"},
	"core/internal/route":      {"core/internal/tunnel", "internal/cidr", "internal/hostname"},
	"core/internal/targets":    {"internal/cidr"},
	"core/internal/listen":     {"internal/bare", "internal/clienthello", "internal/hostname", "internal/neterr", "internal/tlsconf", "core/internal/tunnel", "internal/socks5", "proto/tunneld/plugin/v1"},
	"core/internal/splice":     {"internal/bare", "internal/sockopt", "core/internal/tunnel"},
	"core/diag":                {},
	"core/status":              {},
	"core/internal/plugintest": {},
	"core/internal/metrics":    {"core/status", "core/internal/tunnel"},
	"core/internal/auth":       {"internal/follow", "internal/userfile"},
	"core/internal/control":    {"core/status"},
	"core/internal/pluginhost": {"internal/bare", "internal/hostname", "core/internal/tunnel", "internal/pluginwire", "internal/nodump", "internal/plaintext", "internal/schema", "internal/tlsconf", "internal/userfile", "proto/tunneld/plugin/v1"},
	"core/internal/engine": {
		"core/diag", "core/internal/auth", "core/internal/config", "core/internal/control", "core/internal/listen", "core/internal/metrics", "core/internal/pluginhost", "core/internal/route", "core/internal/splice", "core/internal/targets", "core/status", "core/internal/tunnel", "internal/bare", "internal/follow", "internal/listenfds", "internal/userfile", "internal/neterr", "internal/outbound", "internal/plaintext", "internal/pluginwire", "proto/tunneld/plugin/v1", "internal/tlsconf",
	},
	"core/conformance": {
		"core/conformance/internal/...", "core/diag", "core/internal/config", "core/internal/pluginhost", "core/internal/tunnel",
		"internal/pluginwire", "internal/nodump", "internal/plaintext", "internal/schema", "proto/tunneld/plugin/v1",
	},
	"core/conformance/internal/...": {"core/conformance/internal/...", "core/internal/tunnel", "internal/plaintext", "proto/tunneld/plugin/v1"},
	"core": {
		"core/diag", "core/internal/config", "core/internal/control", "core/internal/engine",
		"core/internal/hclbody", "core/status", "internal/listenfds", "internal/logqueue", "internal/schema",
	},

	// The program, which alone lists the bundled plugins.
	"cmd/tunneld": {"internal/version", "internal/emu", "core", "core/conformance", "core/diag", "core/status", "internal/nodump", "internal/logqueue", "internal/userfile", "plugins/sdk", "plugins/sapsocks/...", "plugins/websocks/...", "plugins/soht/...", "plugins/azrelay/..."},

	// What runs the program and measures, disturbs or tests it. It knows the
	// core by its public face, if at all.
	"docs":  {},
	"bench": {"internal/emu", "internal/freeport", "internal/nodump", "internal/socks5", "plugins/sapsocks/sapsocksemu", "plugins/sdk"},
	"chaos": {"core", "internal/emu", "core/status", "internal/freeport", "internal/nodump", "plugins/sapsocks/sapsocksemu", "plugins/sdk"},
	testsAlone: {
		"internal/emu", "internal/logtest", "internal/nettest", "internal/proctest", "internal/pluginwire", "internal/socks5", "plugins/sdk/...",
		"plugins/sapsocks/...", "plugins/websocks/...", "plugins/soht/...", "plugins/azrelay/...",
	},
}

// testsAlone has nothing but tests, so that their imports are what it imports.
const testsAlone = "interop/..."

type listed struct {
	ImportPath                         string
	Imports, TestImports, XTestImports []string
}

// imports returns the imports that the layers restrict.
func (p listed) imports() []string {
	if covers(testsAlone, strings.TrimPrefix(p.ImportPath, module)) {
		return slices.Concat(p.Imports, p.TestImports, p.XTestImports)
	}
	return p.Imports
}

// lookAtModule lets go test see what the go command reads for a test. Without it a
// result stays in the cache whatever changes in other packages.
func lookAtModule(t *testing.T) {
	t.Helper()
	err := filepath.WalkDir("../..", func(_ string, d fs.DirEntry, err error) error {
		if d != nil && d.IsDir() && (d.Name() == ".git" || d.Name() == "node_modules") {
			return fs.SkipDir
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil // another test's, and gone meanwhile
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestImportsPointDown(t *testing.T) {
	lookAtModule(t)
	out, err := exec.CommandContext(t.Context(), "go", "list", "-tags", "interop", "-json=ImportPath,Imports,TestImports,XTestImports", module+"...").Output()
	if err != nil {
		t.Fatal(err)
	}
	absent, used := maps.Clone(allowed), map[[2]string]bool{}
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimPrefix(p.ImportPath, module)
		entry, known := entryOf(name)
		if !known {
			t.Errorf("%s is in no layer: add it to the list here and to the map in ARCHITECTURE.md", name)
			continue
		}
		delete(absent, entry)
		for _, i := range p.imports() {
			to, ours := strings.CutPrefix(i, module)
			if !ours {
				continue
			}
			covered := false
			for _, e := range allowed[entry] {
				if covers(e, to) {
					covered, used[[2]string{entry, e}] = true, true
				}
			}
			if !covered {
				t.Errorf("%s must not import %s", name, to)
			}
		}
	}
	for entry := range absent {
		t.Errorf("%s is in the list, but there is no such package", entry)
	}
	for entry, edges := range allowed {
		for _, e := range edges {
			// Other systems build fewer files. A family may always import its own packages.
			if runtime.GOOS == "linux" && e != entry && !used[[2]string{entry, e}] {
				t.Errorf("%s may import %s, but does not: remove that from the list", entry, e)
			}
		}
	}
}

// row is a package in the map in ARCHITECTURE.md, with everything below it.
type row struct {
	layer int
	path  string
}

// readMap returns the rows in their order.
func readMap(t *testing.T) []row {
	t.Helper()
	text, err := os.ReadFile("../../ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	var rows []row
	for _, line := range regexp.MustCompile(`(?m)^\| (\d+) \| ([^|]+) \|`).FindAllStringSubmatch(string(text), -1) {
		layer, err := strconv.Atoi(line[1])
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(line[2], -1) {
			rows = append(rows, row{layer, name[1]})
		}
	}
	return rows
}

// holds says whether the row is for a package. NAME stands for any plugin's name.
func (r row) holds(name string) bool {
	if below, ok := strings.CutPrefix(r.path, "plugins/NAME"); ok {
		parts := strings.SplitN(name, "/", 3)
		return below == "" && len(parts) > 1 && parts[0] == "plugins" && parts[1] != "sdk"
	}
	return name == r.path || strings.HasPrefix(name, r.path+"/")
}

// TestMapHasTheLayers: each package has its row in the map, each row its package, and
// each allowed import leads to a lower layer. In layer 0, packages may import each other.
func TestMapHasTheLayers(t *testing.T) {
	rows := readMap(t)
	// in returns the row of a package: the one with the longest path.
	in := func(name string) (found row, ok bool) {
		for _, r := range rows {
			if r.holds(name) && (!ok || len(r.path) > len(found.path)) {
				found, ok = r, true
			}
		}
		return found, ok
	}
	plain := func(pattern string) string { return strings.TrimSuffix(pattern, "/...") }
	for name, edges := range allowed {
		from, ok := in(plain(name))
		if !ok {
			t.Errorf("%s has no row in the map of ARCHITECTURE.md", name)
			continue
		}
		for _, e := range edges {
			to, ok := in(plain(e))
			if ok && to != from && to.layer >= from.layer && to.layer > 0 {
				t.Errorf("%s is in layer %d and may import %s, which is in layer %d", name, from.layer, e, to.layer)
			}
		}
	}
	for i, r := range rows {
		if i > 0 && r.layer > rows[i-1].layer {
			t.Errorf("the row of %s is below the rows of lower layers", r.path)
		}
		used := false
		for name := range allowed {
			at, _ := in(plain(name))
			used = used || at == r
		}
		if _, err := os.Stat("../../" + r.path); !used || err != nil && !strings.Contains(r.path, "NAME") {
			t.Errorf("the map names %s, which is no package", r.path)
		}
	}
}

// entryOf returns the key of allowed that covers a package.
func entryOf(name string) (string, bool) {
	if _, ok := allowed[name]; ok {
		return name, true
	}
	for entry := range allowed {
		if covers(entry, name) {
			return entry, true
		}
	}
	return "", false
}

func covers(pattern, name string) bool {
	prefix, below := strings.CutSuffix(pattern, "/...")
	return name == pattern || below && (name == prefix || strings.HasPrefix(name, prefix+"/"))
}
