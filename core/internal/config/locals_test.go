package config

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// TestLocals: they stand in any order and in any file, refer to each other, and need
// not be used.
func TestLocals(t *testing.T) {
	t.Chdir(t.TempDir())
	t.Setenv("ACME_SECRET", "the-secret-of-acme")
	writeFiles(t, map[string]string{
		"conf/a.hcl": `
locals { url = "https://${local.host}:${local.ports.web}/" }

upstream "acme" "a" {
  url     = local.url
  token   = local.token
  hosts   = [for h in local.hosts : "${h}.corp"]
  wait    = local.wait
  headers = { local = local["host"] }
  half_close = local.wait
}

upstream "direct" "d" {}

listener "tcp" "l" {
  address = "127.0.0.1:${local.ports.db}"
  target  = "${local.host}:1"
}

route "r" {
  match { ports = [local.ports.db, 1] }
  upstreams = [upstream.acme.a, upstream.direct.d]
}
`,
		"conf/b.hcl": `
locals {
  token  = trimspace(file("../token"))
  hosts  = [local.host, "b"]
  host   = "h"
  ports  = { web = 443, db = 5432 }
  wait   = "7s"
  unused = [for local in [{ a = 1 }] : local.a]
}
`,
		"token": "a-token\n",
	})
	cfg, diags := diagnose("conf")
	if len(diags) > 0 {
		t.Fatal(printed(t, diags))
	}
	u := cfg.Upstreams[0]
	if got, want := string(u.JSON), `{"headers":{"local":"h"},"hosts":["h.corp","b.corp"],"size":32768,"token":"a-token","url":"https://h:443/","wait":"7s"}`; got != want {
		t.Errorf("the plugin is given %s, want %s", got, want)
	}
	if *u.Common.HalfClose != 7*time.Second || cfg.Listeners[0].Addresses[0] != "127.0.0.1:5432" || cfg.Routes[0].Match.Ports[0] != "5432" {
		t.Errorf("%v, %v, %v", *u.Common.HalfClose, cfg.Listeners[0].Addresses, cfg.Routes[0].Match.Ports)
	}
}

// TestLocalsAreBounded: what locals hold counts where they are referred to, so that no
// chain of them comes to more than one expression may; and none is too deep.
func TestLocalsAreBounded(t *testing.T) {
	withoutRace(t)
	chain := func(n int, format string) string {
		var b strings.Builder
		b.WriteString("locals {\n  a0 = [\"x\", \"x\", \"x\"]\n")
		for i := 1; i < n; i++ {
			b.WriteString("  a" + fmt.Sprintf(format, i, i-1) + "\n")
		}
		return b.String() + "}\n"
	}
	for name, c := range map[string]struct{ text, want string }{
		"doubled":         {chain(60, "%d = [local.a%d, local.a%[2]d]"), "takes too much to compute"},
		"looped":          {chain(60, "%d = [for x in local.a%d : local.a%[2]d]"), "takes too much to compute"},
		"deep":            {chain(150, "%d = [local.a%d]"), "Nested too deeply"},
		"a long chain":    {chain(5000, "%d = local.a%d"), ""},
		"turned round":    {reversed(chain(150, "%d = local.a%d")), "Nested too deeply"},
		"long text":       {"locals {\n  a = jsonencode([for x in [1] : \"" + strings.Repeat("y", 1<<20) + "\"])\n  b = [local.a, local.a, local.a, local.a, local.a, local.a, local.a, local.a]\n}\n", "takes too much to compute"},
		"many, but short": {chain(90, "%d = [local.a%d[0]]"), ""},
	} {
		_, diags := parseText(t, c.text)
		got := printed(t, diags)
		if c.want == "" && got != "" || !strings.Contains(got, c.want) || strings.Count(got, "Error:") > 1 {
			t.Errorf("%s: %.2000s", name, got)
		}
	}
}

// reversed has the lines of a locals block in the other order.
func reversed(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	for i, j := 1, len(lines)-2; i < j; i, j = i+1, j-1 {
		lines[i], lines[j] = lines[j], lines[i]
	}
	return strings.Join(lines, "\n") + "\n"
}

// TestLocalsOfFilesAreFollowed: a body that takes a file's text from a local, also by
// way of another, is one that follows the file.
func TestLocalsOfFilesAreFollowed(t *testing.T) {
	t.Chdir(t.TempDir())
	write := func(token string) {
		writeFiles(t, map[string]string{"token": token, "conf/main.hcl": `
locals {
  token  = trimspace(file("../token"))
  header = { token = local.token }
  plain  = "u"
}

upstream "acme" "a" {
  url     = local.plain
  headers = local.header
}

upstream "acme" "b" { url = local.plain }

route "r" { upstreams = [upstream.acme.a, upstream.acme.b] }
`})
	}
	write("one\n")
	cfg, diags := diagnose("conf")
	files := cfg.ValueFiles()
	if len(diags) > 0 || len(files) != 1 || len(files["upstream.acme.a"]) != 1 {
		t.Fatal(printed(t, diags), files)
	}
	write("two\n")
	next, diags := cfg.Reread([]string{"upstream.acme.a"})
	diags = append(diags, next.DecodeUpstreams(map[string]PluginSchema{"acme": {Block: acme}})...)
	if got := string(next.Upstreams[0].JSON); len(diags) > 0 || !strings.Contains(got, `{"token":"two"}`) {
		t.Errorf("%s %s", got, printed(t, diags))
	}
	if got := string(cfg.Upstreams[0].JSON); !strings.Contains(got, `{"token":"one"}`) {
		t.Errorf("the old configuration has become %s", got)
	}
	if len(next.ValueFiles()["upstream.acme.a"]) != 1 {
		t.Error("the file is not followed any more")
	}
	if err := os.Remove("token"); err != nil {
		t.Fatal(err)
	}
	_, diags = next.Reread([]string{"upstream.acme.a"})
	if got := printed(t, diags); strings.Count(got, "Error:") != 1 || !strings.Contains(got, "cannot be read") || !strings.Contains(got, "line 3, in locals") {
		t.Errorf("%s", got)
	}
}
