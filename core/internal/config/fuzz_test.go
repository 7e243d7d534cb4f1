package config

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
)

// FuzzParse: no source panics, and what env and file give is never printed.
func FuzzParse(f *testing.F) {
	cases, err := filepath.Glob("testdata/bad/*.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, path := range cases {
		archive, err := txtar.ParseFile(path)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range archive.Files {
			if strings.HasSuffix(file.Name, ".hcl") {
				f.Add(file.Data)
			}
		}
	}
	for _, source := range mistakes {
		f.Add([]byte(strings.ReplaceAll(source, strings.Repeat("[", 100), "")))
	}
	dir := f.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "canary.txt"), []byte(canary), 0o600); err != nil {
		f.Fatal(err)
	}
	f.Setenv("CANARY", canary)
	f.Fuzz(func(t *testing.T, source []byte) {
		if len(source) > 4096 {
			return
		}
		parsed, problems := parseFile("main.hcl", source)
		p := newParser(&Config{src: newSource(dir)})
		p.src.files["main.hcl"] = parsed
		p.report(problems...)
		p.defaults()
		p.file(parsed)
		p.addresses()
		if parsed.broken == 0 {
			p.references()
		}
		diags := append(p.diags, p.cfg.DecodeUpstreams(map[string]PluginSchema{"acme": {Block: acme}})...)
		if got := printed(t, diags); leaked(got) != "" && leaked(string(source)) == "" {
			t.Errorf("the secret is printed:\n%s", got)
		}
	})
}

// FuzzFormat: formatting changes nothing a second time, nor what is said.
func FuzzFormat(f *testing.F) {
	for _, name := range []string{"testdata/example.hcl", "testdata/minimal.hcl"} {
		src, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(src)
	}
	f.Add([]byte("a=1\n  # x\nb   = [\n1,2]\n"))
	f.Fuzz(func(t *testing.T, source []byte) {
		if len(source) > 4096 {
			return
		}
		once, err := Format(source, "main.hcl")
		if err != nil {
			return
		}
		twice, err := Format(once, "main.hcl")
		if err != nil || !bytes.Equal(once, twice) {
			t.Errorf("%q became %q, and then %q (%v)", source, once, twice, err)
		}
	})
}

// FuzzAddress: a target that is taken is one, and an address overlaps itself.
func FuzzAddress(f *testing.F) {
	for _, s := range []string{"*.corp", "db", "db.", "10.0.0.0/8", "fd00::/8", "::ffff:10.0.0.1", "a b", "[::1]", "a:1", "..", "?", "fe80::1%eth0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if target, problem := parseTarget(s); problem == "" {
			again, problem := parseTarget(target.String())
			if problem != "" || again != target {
				t.Errorf("%q became %+v, and then %+v (%s)", s, target, again, problem)
			}
		}
		if a, problem := parseListenAddress(s); problem == "" && a.overlaps(a) != (a.port != 0 || a.fd != "" || a.path != "") {
			t.Errorf("%q does not overlap itself", s)
		}
	})
}
