package config

import (
	"os"
	"path/filepath"
	"testing"
)

// TestFindControl: whatever is wrong with the rest, the socket is found.
func TestFindControl(t *testing.T) {
	const control, daemon = "control {\n  address = \"unix:///c\"\n}\n", "daemon {\n  run_dir = \"/r\"\n}\n"
	tests := []struct {
		name            string
		files           map[string]string
		address, runDir string
	}{
		{"nothing", map[string]string{"a.hcl": ""}, "", ""},
		{"both", map[string]string{"a.hcl": control + daemon}, "unix:///c", "/r"},
		{"in two files", map[string]string{"a.hcl": control, "b.hcl": daemon}, "unix:///c", "/r"},
		{"on one line", map[string]string{"a.hcl": "control { address = \"unix:///c\" }\n"}, "unix:///c", ""},
		{"an unknown block", map[string]string{"a.hcl": "nonsense {}\n" + control + daemon}, "unix:///c", "/r"},
		{"an open block before it", map[string]string{"a.hcl": "listener \"tcp\" \"x\" {\n" + control + daemon}, "unix:///c", "/r"},
		{"an open block behind it", map[string]string{"a.hcl": control + daemon + "listener \"tcp\" \"x\" {\n"}, "unix:///c", "/r"},
		{"an open text before it", map[string]string{"a.hcl": "log {\n  level = \"debug\n}\n" + control + daemon}, "unix:///c", "/r"},
		{"an open template before it", map[string]string{"a.hcl": "log {\n  level = \"${x\"\n}\n" + control}, "unix:///c", ""},
		{"an open text of many lines before it", map[string]string{"a.hcl": "log {\n  level = <<EOT\n}\n" + control}, "unix:///c", ""},
		{"on one line, broken", map[string]string{"a.hcl": "x {\ncontrol { address = \"unix:///c\" }\n"}, "unix:///c", ""},
		{"an open block of its own", map[string]string{"a.hcl": "control {\n  address = \"unix:///c\"\n"}, "unix:///c", ""},
		{"a broken file and a whole one", map[string]string{"a.hcl": "listener {", "b.hcl": control}, "unix:///c", ""},
		{"comments do not count", map[string]string{"a.hcl": "listener {\n# control { address = \"unix:///no\" }\n// run_dir = \"/no\"\n"}, "", ""},
		{"nor comments in it", map[string]string{"a.hcl": "listener {\ncontrol {\n  # address = \"unix:///no\"\n}\n"}, "", ""},
		{"nor templates", map[string]string{"a.hcl": "listener {\ncontrol {\n  address = \"unix://${env(\"X\")}\"\n}\n"}, "", ""},
		{"nor other blocks", map[string]string{"a.hcl": "listener {\nmetrics {\n  address = \"127.0.0.1:1\"\n}\n"}, "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			for name, text := range tt.files {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if address, runDir, read := FindControl(dir); address != tt.address || runDir != tt.runDir || !read {
				t.Errorf("got %q, %q; want %q, %q", address, runDir, tt.address, tt.runDir)
			}
		})
	}
	if address, runDir, read := FindControl(filepath.Join(t.TempDir(), "none")); address != "" || runDir != "" || read {
		t.Errorf("no file: %q, %q", address, runDir)
	}
}
