package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tunneld/tunneld/plugins/sapsocks/sapsocksemu"
)

// TestDeepConfigurationKillsNothing: hcl recurses over expressions, and a stack
// that overflows cannot be caught.
func TestDeepConfigurationKillsNothing(t *testing.T) {
	s := startSapsocks(t, sapsocksemu.Options{})
	place, socket := runIn(t)
	p := runProgram(t, 1, place+s.onprem(""))
	conn := dialTCP(t, p.address(t, "tcp.db"))
	pingPong(t, conn, "before")
	deep := filepath.Join(t.TempDir(), "deep.json")
	if err := os.WriteFile(deep, []byte(strings.Repeat("[", 1<<20)), 0o600); err != nil {
		t.Fatal(err)
	}
	const much = 768 << 10
	for name, expr := range map[string]string{
		"splat": `["a"]` + strings.Repeat("[*]", much/3),
		"sum":   "1" + strings.Repeat("+1", much/2),
		"and":   "true" + strings.Repeat("&&true", much/6),
		"if":    `"` + strings.Repeat("%{if true}", much/20) + strings.Repeat("%{endif}", much/20) + `"`,
		"json":  fmt.Sprintf("jsondecode(file(%q))", deep),
	} {
		p.write(t, place+"upstream \"sapsocks\" \"deep\" {\n token = "+expr+"\n}\n"+s.onprem(""))
		if r := reloadBy(t, socket); !r.Invalid || !strings.Contains(r.Diagnostics, "deep") {
			t.Errorf("%s: %s\n%s", name, r.Error, r.Diagnostics)
		}
		if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		pingPong(t, conn, "after it")
	}
}
