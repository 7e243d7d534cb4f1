package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestTutorialIsTheExample: every piece of Go in docs/writing-a-plugin.md stands
// in the example, which is compiled and tested.
func TestTutorialIsTheExample(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(root, "docs", "writing-a-plugin.md"))
	if err != nil {
		t.Fatal(err)
	}
	var example strings.Builder
	for _, name := range []string{"main.go", "main_test.go"} {
		text, err := os.ReadFile(filepath.Join(root, "examples", "plugins", "httpconnect", name))
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(text), "\n"); name == "main.go" && n >= 150 {
			t.Errorf("%s has %d lines: it is to be read in one go", name, n)
		}
		example.Write(text)
	}
	pieces := regexp.MustCompile("(?ms)^```go\n(.*?)^```$").FindAllStringSubmatch(string(page), -1)
	if len(pieces) < 5 {
		t.Errorf("only %d pieces of Go were found", len(pieces))
	}
	for _, piece := range pieces {
		if !strings.Contains(example.String(), piece[1]) {
			t.Errorf("this is not in the example:\n%s", piece[1])
		}
	}
}

// TestTutorialNeedsNoRights: what its configuration names, but for the plugin's
// program, is nothing that only some users may bind or make.
func TestTutorialNeedsNoRights(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(root, "docs", "writing-a-plugin.md"))
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, config := range fences.FindAllStringSubmatch(string(page), -1) {
		for _, m := range regexp.MustCompile(`(\S+) *=.*"(?:unix://)?(/[^"]*)"`).FindAllStringSubmatch(config[1], -1) {
			if seen++; m[1] != "command" {
				t.Errorf("%s is %s", m[1], m[2])
			}
		}
	}
	if seen == 0 {
		t.Error("the plugin's program was not found")
	}
}
