package main

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io/fs"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/tunneld/tunneld/core"
	"github.com/tunneld/tunneld/core/diag"
	"github.com/tunneld/tunneld/internal/nettest"
	"github.com/tunneld/tunneld/plugins/sapsocks/sapsocksemu"
)

const root = "../.."

// surroundings are what the configurations of the documentation read.
type surroundings struct {
	replace *strings.Replacer
	signer  *nettest.Authority
}

// tlsFolder is where they have the files of listeners' tls blocks.
const tlsFolder = "/etc/tunneld/tls"

var tlsFiles = regexp.MustCompile(tlsFolder + `/([\w.-]+)\.(?:pem|key)"`)

// surround sets the environment and makes the files that are named there; their
// paths are replaced.
func surround(t *testing.T) surroundings {
	t.Helper()
	emu, err := sapsocksemu.Start(sapsocksemu.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := emu.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Setenv("VCAP_SERVICES", emu.VCAPServices())
	t.Setenv("AZRELAY_KEY", "c2VuZGVyIGtleQ==")
	secrets, binding := t.TempDir(), t.TempDir()
	authority := httptest.NewTLSServer(nil)
	authority.Close()
	for name, text := range map[string]string{
		"soht": "of the example", "websocks": "of the example", "proxy": "of-the-example\n",
		"redis-ca.pem": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: authority.Certificate().Raw})),
	} {
		if err := os.WriteFile(filepath.Join(secrets, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for key, value := range emu.Credentials() {
		if err := os.WriteFile(filepath.Join(binding, key), []byte(value), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// COMMAND is what an example's kit.hcl has for the program that is built of it, and
	// certificates the folder that the script of an example makes.
	return surroundings{
		strings.NewReplacer("COMMAND", "/opt/plugin", `"certificates/`, `"`+tlsFolder+"/", "/run/secrets", secrets, "/etc/secrets/sapcp/connectivity/my-connectivity", binding),
		nettest.NewAuthority(t, "of the documentation"),
	}
}

// issue makes what a configuration has in tlsFolder, in a folder that it returns: NAME.pem
// is a certificate where there is a NAME.key, and an authority elsewhere.
func (s surroundings) issue(t *testing.T, config string) (folder string) {
	t.Helper()
	folder = t.TempDir()
	write := func(name string, text []byte) {
		if err := os.WriteFile(filepath.Join(folder, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, m := range tlsFiles.FindAllStringSubmatch(config, -1) {
		name := m[1]
		if !strings.Contains(config, tlsFolder+"/"+name+".key\"") {
			write(name+".pem", s.signer.PEM())
			continue
		}
		cert, key := s.signer.Issue(t, &x509.Certificate{DNSNames: []string{name + ".example"}})
		write(name+".pem", cert)
		write(name+".key", key)
	}
	return folder
}

// valid checks one configuration with its plugins. Where it has a plugin of a
// third party, which is not here, the rest is checked.
func (s surroundings) valid(t *testing.T, config string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tunneld.hcl")
	text := s.replace.Replace(config)
	text = strings.ReplaceAll(text, tlsFolder, s.issue(t, text))
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	diags, err := core.Validate(t.Context(), options(path))
	if err != nil {
		t.Fatal(err)
	}
	if blockOf("plugin").MatchString(config) {
		diags = slices.DeleteFunc(diags, func(d diag.Diagnostic) bool { return strings.HasPrefix(d.Summary, "there is no plugin") })
	}
	if diags.HasErrors() {
		t.Errorf("%s\n%s", told(diags), config)
	}
}

// TestExamplesAreValid: every configuration under examples/, in its canonical
// layout too.
func TestExamplesAreValid(t *testing.T) {
	s := surround(t)
	seen := 0
	err := filepath.WalkDir(filepath.Join(root, "examples"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".hcl" || strings.Contains(path, "node_modules") {
			return err
		}
		seen++
		t.Run(filepath.ToSlash(path), func(t *testing.T) {
			src, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			formatted, err := core.Format(src, path)
			if err != nil || string(formatted) != string(src) {
				t.Errorf("not in the canonical layout (%v): run tunneld fmt", err)
			}
			config := string(src)
			if filepath.Base(path) == "kit.hcl" { // nobody runs it: plugin test needs no listener
				config = whole(config)
			}
			s.valid(t, config)
		})
		return nil
	})
	if err != nil || seen < 9 {
		t.Fatalf("%d configurations: %v", seen, err)
	}
}

var (
	fences    = regexp.MustCompile("(?ms)^```hcl\n(.*?)^```$")
	upstreams = regexp.MustCompile(`(?m)^upstream "(\w+)" "([\w-]+)"`)
	blockOf   = func(name string) *regexp.Regexp { return regexp.MustCompile(`(?m)^` + name + ` "`) }
)

// whole completes what a page leaves away: a fragment names the blocks that it
// is about.
func whole(config string) string {
	var names []string
	for _, m := range upstreams.FindAllStringSubmatch(config, -1) {
		names = append(names, "upstream."+m[1]+"."+m[2])
	}
	if len(names) == 0 {
		config += "\nupstream \"direct\" \"rest\" {}\n"
		names = []string{"upstream.direct.rest"}
	}
	if !blockOf("listener").MatchString(config) {
		config += "\nlistener \"socks5\" \"rest\" { address = \"127.0.0.1:1\" }\n"
	}
	if !blockOf("route").MatchString(config) {
		config += fmt.Sprintf("\nroute \"rest\" { upstreams = [%s] }\n", strings.Join(names, ", "))
	}
	return config
}

// TestDocumentedConfigurationsAreValid: every block of the pages that users read.
func TestDocumentedConfigurationsAreValid(t *testing.T) {
	s := surround(t)
	seen := 0
	for _, pattern := range []string{"README.md", "docs/*.md", "plugins/*/README.md"} {
		pages, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil || len(pages) == 0 {
			t.Fatalf("%s: %d pages, %v", pattern, len(pages), err)
		}
		for _, page := range pages {
			text, err := os.ReadFile(page)
			if err != nil {
				t.Fatal(err)
			}
			for i, m := range fences.FindAllStringSubmatch(string(text), -1) {
				seen++
				t.Run(fmt.Sprintf("%s/%d", filepath.ToSlash(page), i+1), func(t *testing.T) { s.valid(t, whole(m[1])) })
			}
		}
	}
	if seen < 10 {
		t.Errorf("only %d configurations were found", seen)
	}
}
