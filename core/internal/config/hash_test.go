package config

import (
	"encoding/pem"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
)

func TestHashDependsOnValuesOnly(t *testing.T) {
	hash := func(source string) string {
		t.Helper()
		cfg, _ := parseText(t, source)
		if d := cfg.DecodeUpstreams(map[string]PluginSchema{"acme": {Block: acme}}); d.HasErrors() {
			t.Fatal(d)
		}
		return cfg.Upstreams[0].Hash
	}
	a := hash("upstream \"acme\" \"a\" {\n url = \"u\"\n token = \"t\"\n}")
	b := hash("# moved\nlog {}\nupstream \"acme\" \"a\" {\n token = trimspace(\" t \")\n size = \"32KiB\"\n url = \"u\"\n}")
	c := hash("upstream \"acme\" \"a\" {\n url = \"u\"\n token = \"T\"\n}")
	if a != b || a == c {
		t.Errorf("hashes %q, %q, %q: want the first two equal", a, b, c)
	}
}

// TestHashOfDirect: it is another upstream where it dials in another way.
func TestHashOfDirect(t *testing.T) {
	ca := filepath.Join(t.TempDir(), "ca.pem")
	s := httptest.NewTLSServer(nil)
	defer s.Close()
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	hash := func(body string) string {
		t.Helper()
		cfg, diags := parseText(t, "upstream \"direct\" \"d\" {\n"+body+"\n}\n")
		if diags.HasErrors() {
			t.Fatal(diags)
		}
		return cfg.Undecoded().Upstreams[0].Hash
	}
	known := map[string]string{}
	for _, body := range []string{"", "tls {}", fmt.Sprintf("tls {\n ca_file = %q\n}", ca), "tls {\n server_name = \"x\"\n}", `via = "http://127.0.0.1:1"`, `via = "http://u:p@127.0.0.1:1"`, `bind = "127.0.0.1"`} {
		h := hash(body)
		if other, is := known[h]; is || len(h) != 64 {
			t.Errorf("%q has the hash %q, as %q", body, h, other)
		}
		known[h] = body
		if h != hash(body+"\nmax_connections = 3") {
			t.Errorf("%q: a limit makes another upstream of it", body)
		}
	}
}
