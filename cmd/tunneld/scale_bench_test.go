package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tunneld/tunneld/core"
)

// BenchmarkReload1000Listeners10000Routes reloads a large configuration of which
// one route has changed.
func BenchmarkReload1000Listeners10000Routes(b *testing.B) {
	var text strings.Builder
	text.WriteString("log {\n level = \"error\"\n}\nupstream \"direct\" \"far\" {}\n")
	for i := range 1000 {
		fmt.Fprintf(&text, "listener \"tcp\" \"l%d\" {\n address = \"127.0.0.1:0\"\n target = \"db%d.corp:5432\"\n}\n", i, i)
	}
	for i := range 10_000 {
		fmt.Fprintf(&text, "route \"r%d\" {\n match { hosts = [\"db%d.corp\"] }\n upstreams = [upstream.direct.far]\n}\n", i, i)
	}
	path := filepath.Join(b.TempDir(), "tunneld.hcl")
	write := func(i int) {
		last := fmt.Sprintf("route \"last\" {\n match { hosts = [\"last%d.corp\"] }\n upstreams = [upstream.direct.far]\n}\n", i)
		if err := os.WriteFile(path, []byte(text.String()+last), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	write(0)
	opts := options(path)
	opts.Log = os.Stderr
	d, diags, err := core.Start(b.Context(), opts)
	if err != nil {
		b.Fatal(err, diags)
	}
	defer d.Stop(b.Context())
	for i := 1; b.Loop(); i++ {
		write(i)
		if out := d.Reload(b.Context()); out.Error != "" || len(out.Changes) != 1 {
			b.Fatalf("%+v", out)
		}
	}
}
