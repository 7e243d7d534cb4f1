package websocks

import (
	"os"
	"strings"
	"testing"

	"github.com/tunneld/tunneld/plugins/sdk/sdktest"
)

// TestREADME has every setting in the README's table.
func TestREADME(t *testing.T) {
	b, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	schema := sdktest.Start(t, Plugin()).Schema()
	var names []string
	for _, a := range schema.GetAttributes() {
		names = append(names, a.GetName())
	}
	for _, n := range schema.GetBlocks() {
		for _, a := range n.GetBody().GetAttributes() {
			names = append(names, n.GetName()+"."+a.GetName())
		}
	}
	for _, name := range names {
		if !strings.Contains(string(b), "`"+name+"`") {
			t.Errorf("README.md does not mention %s", name)
		}
	}
}
