package config

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"

	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"

	"github.com/tunneld/tunneld/core/diag"
)

// canary is the secret that nothing may print, not even a piece of it.
const canary = "Xk9mT4qRYvQ2zPw7"

// leaked returns a piece of the canary that the text holds, or "".
func leaked(text string) string {
	const piece = 6
	for i := 0; i+piece <= len(canary); i++ {
		if p := canary[i : i+piece]; strings.Contains(text, p) {
			return p
		}
	}
	if encoded := base64.StdEncoding.EncodeToString([]byte(canary)); strings.Contains(text, encoded[:12]) {
		return encoded[:12]
	}
	return ""
}

// everything is all that could be printed of a configuration by mistake.
func everything(t *testing.T, cfg *Config, diags diag.Diagnostics) string {
	t.Helper()
	var b strings.Builder
	b.WriteString(printed(t, diags))
	b.WriteString(diags.Error())
	fmt.Fprintf(&b, "%v %+v %#v %s %v %+v", cfg, cfg, cfg, cfg, *cfg, diags)
	for _, u := range cfg.Upstreams {
		fmt.Fprintf(&b, "%v %+v %#v %s", u, u, u, u)
	}
	for _, p := range cfg.Plugins {
		fmt.Fprintf(&b, "%v %+v %#v %s", p, p, p, p)
	}
	text := slog.New(slog.NewTextHandler(&b, nil))
	diags.Log(text)
	text.Info("a", "cfg", cfg, "plugins", cfg.Plugins, "upstreams", cfg.Upstreams)
	object := slog.New(slog.NewJSONHandler(&b, nil))
	diags.Log(object)
	object.Info("a", "cfg", cfg, "plugins", cfg.Plugins, "upstreams", cfg.Upstreams)
	if err := json.NewEncoder(&b).Encode(cfg); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// mistakes each hold the canary (C) where a secret stands, or one of the ways
// to it: the variable CANARY, the file canary.txt.
var mistakes = map[string]string{
	"syntax error after it":     "upstream \"acme\" \"a\" {\n  token = \"C\" x\n}",
	"syntax error before it":    "upstream \"acme\" \"a\" {\n  url = = \n  token = \"C\"\n}",
	"syntax error in it":        "upstream \"acme\" \"a\" {\n  token = \"C${\"\n}",
	"escape":                    "upstream \"acme\" \"a\" {\n  token = \"C\\C\"\n}",
	"no quotes":                 "upstream \"acme\" \"a\" {\n  token = C\n}",
	"no quotes, two words":      "upstream \"acme\" \"a\" {\n  token = C C\n}",
	"no quotes, dots":           "upstream \"acme\" \"a\" {\n  token = C.C\n}",
	"no quotes, call":           "upstream \"acme\" \"a\" {\n  token = C(C)\n}",
	"no quotes, operators":      "upstream \"acme\" \"a\" {\n  token = C+C/C==\n}",
	"no quotes, in a list":      "upstream \"acme\" \"a\" {\n  hosts = [C, C]\n}",
	"no opening quote":          "upstream \"acme\" \"a\" {\n  token = C\"\n}",
	"no closing quote":          "upstream \"acme\" \"a\" {\n  token = \"C\n  url = \"u\"\n}",
	"single quotes":             "upstream \"acme\" \"a\" {\n  token = 'C'\n}",
	"backticks":                 "upstream \"acme\" \"a\" {\n  token = `C`\n}",
	"curly quotes":              "upstream \"acme\" \"a\" {\n  token = “C”\n}",
	"no equals sign":            "upstream \"acme\" \"a\" {\n  token \"C\"\n}",
	"no equals sign, no quotes": "upstream \"acme\" \"a\" {\n  token C\n}",
	"colon":                     "upstream \"acme\" \"a\" {\n  token: \"C\"\n}",
	"a block for it":            "upstream \"acme\" \"a\" {\n  token \"C\" {\n  }\n}",
	"a block with two labels":   "upstream \"acme\" \"a\" {\n  mapping \"C\" \"C\" {\n  }\n}",
	"a label twice":             "upstream \"acme\" \"a\" {\n  mapping \"C\" {\n    to = 1\n  }\n  mapping \"C\" {\n  }\n}",
	"on the next line":          "upstream \"acme\" \"a\" {\n  token =\n    \"C\"\n}",
	"bare on the next line":     "upstream \"acme\" \"a\" {\n  token =\nC=\n}",
	"bare on the next lines":    "upstream \"acme\" \"a\" {\n  token = -----BEGIN KEY-----\nC\nC=\nC = \nC==\n-----END KEY-----\n}",
	"in brackets below":         "upstream \"acme\" \"a\" {\n  token = (\n    \"C\",\n  )\n}",
	"list below":                "upstream \"acme\" \"a\" {\n  token = [\n    \"C\",\n    C\n  ]\n}",
	"heredoc without end":       "upstream \"acme\" \"a\" {\n  token = <<EOT\nC\nC = \"C\"\n}",
	"heredoc with a template":   "upstream \"acme\" \"a\" {\n  token = <<EOT\nC${C}\n%{C}\nEOT\n}",
	"heredoc, one sign":         "upstream \"acme\" \"a\" {\n  token = <EOT\nC\nC=\nEOT\n}",
	"heredoc of a wrong type":   "upstream \"acme\" \"a\" {\n  url = \"u\"\n  count = <<EOT\nC\nEOT\n}",
	"misspelt":                  "upstream \"acme\" \"a\" {\n  tokne = \"C\"\n}",
	"misspelt block":            "upstream \"acme\" \"a\" {\n  outh {\n    client_secret = \"C\"\n  }\n}",
	"misspelt in a block":       "upstream \"acme\" \"a\" {\n  oauth {\n    client_secrte = \"C\"\n  }\n}",
	"misspelt upstream":         "upstraem \"acme\" \"a\" {\n  token = \"C\"\n}",
	"upstream in one line":      "upstream \"acme\" \"a\" { tokne = \"C\" }",
	"two in one line":           "upstream \"acme\" \"a\" { token = \"C\", url = \"C\" }",
	"two in one line, no comma": "upstream \"acme\" \"a\" { token = \"C\" url = \"C\" }",
	"block in one line":         "upstream \"acme\" \"a\" {\n  oauth { client_secret = \"C\" }\n}",
	"blocks in one line":        "upstream \"acme\" \"a\" { oauth { client_secret = \"C\" } }",
	"set twice":                 "upstream \"acme\" \"a\" {\n  token = \"C\"\n  token = \"C\"\n}",
	"block twice":               "upstream \"acme\" \"a\" {\n  oauth {\n    client_secret = \"C\"\n  }\n  oauth {\n    client_secret = \"C\"\n  }\n}",
	"upstream twice":            "upstream \"acme\" \"a\" {\n  token = \"C\"\n}\nupstream \"acme\" \"a\" { token = \"C\" }",
	"wrong type, text":          "upstream \"acme\" \"a\" {\n  count = \"C\"\n  size = \"C\"\n  wait = \"C\"\n}",
	"wrong type, list":          "upstream \"acme\" \"a\" {\n  token = [\"C\"]\n}",
	"wrong type, map":           "upstream \"acme\" \"a\" {\n  token = { C = \"C\" }\n}",
	"wrong type in a map":       "upstream \"acme\" \"a\" {\n  headers = { C = [\"C\"] }\n}",
	"wrong type in a list":      "upstream \"acme\" \"a\" {\n  hosts = [[\"C\"]]\n}",
	"a key twice":               "upstream \"acme\" \"a\" {\n  headers = { C = \"C\", C = \"C\" }\n}",
	"a map for a block":         "upstream \"acme\" \"a\" {\n  oauth = { client_secret = \"C\" }\n}",
	"from the environment":      "upstream \"acme\" \"a\" {\n  count = env(\"CANARY\")\n  tokne = env(\"CANARY\")\n}",
	"from a file":               "upstream \"acme\" \"a\" {\n  count = file(\"canary.txt\")\n}",
	"as a variable's name":      "upstream \"acme\" \"a\" {\n  token = env(\"C\")\n}",
	"as a path":                 "upstream \"acme\" \"a\" {\n  token = file(\"C\")\n}",
	"file of the environment":   "upstream \"acme\" \"a\" {\n  token = file(env(\"CANARY\"))\n  url = env(file(\"canary.txt\"))\n}",
	"interpolated":              "upstream \"acme\" \"a\" {\n  token = file(\"/${env(\"CANARY\")}\")\n  url = \"${C}${env(\"CANARY\").x}\"\n}",
	"json of it":                "upstream \"acme\" \"a\" {\n  token = jsondecode(env(\"CANARY\"))\n  url = jsondecode(\"{C\").C\n}",
	"json structure":            "upstream \"acme\" \"a\" {\n  token = jsondecode(env(\"CANARY_JSON\")).secrte\n  url = jsondecode(env(\"CANARY_JSON\"))[\"C\"]\n  count = jsondecode(env(\"CANARY_JSON\"))\n}",
	"into json":                 "upstream \"acme\" \"a\" {\n  count = jsonencode({ C = env(\"CANARY\") })\n}",
	"base64 of it":              "upstream \"acme\" \"a\" {\n  token = base64decode(env(\"CANARY\"))\n  url = base64decode(\"C\")\n}",
	"conditional":               "upstream \"acme\" \"a\" {\n  token = env(\"CANARY\") ? \"C\" : [\"C\"]\n  url = true ? { C = 1 } : \"C\"\n}",
	"arithmetic":                "upstream \"acme\" \"a\" {\n  token = env(\"CANARY\") + \"C\"\n  url = -env(\"CANARY\")\n  old = !\"C\"\n}",
	"loop":                      "upstream \"acme\" \"a\" {\n  hosts = [for C in env(\"CANARY\") : C]\n  headers = { for C in [\"C\", \"C\"] : C => C }\n}",
	"splat and index":           "upstream \"acme\" \"a\" {\n  hosts = env(\"CANARY\")[*].C\n  token = [\"C\"][env(\"CANARY\")]\n}",
	"expanded arguments":        "upstream \"acme\" \"a\" {\n  token = env([\"C\", \"C\"]...)\n  url = trimspace({ C = 1 })\n}",
	"template control":          "upstream \"acme\" \"a\" {\n  token = \"%{ C }C%{ if env(\"CANARY\") }%{ endif }\"\n}",
	"plugin's environment":      "plugin \"acme\" {\n  command = [\"/a\"]\n  env = { \"C D\" = \"C\" }\n}\nupstream \"acme\" \"a\" {\n}",
	"plugin's environment, two": "plugin \"acme\" {\n  command = [\"/a\", \"C\\u0000\"]\n  env = { A = [\"C\"] }\n  sha256 = \"C\"\n  files = { C = \"C\" }\n  secret = \"C\"\n}",
	"plugin in one line":        "plugin \"acme\" { env = { A = \"C\" B = \"C\" } }",
	"plugin unclosed":           "plugin \"acme\" {\n  env = {\n    A = \"C\"\n    B \"C\"\n",
	"auth of a listener":        "listener \"tcp\" \"a\" {\n  address = \"127.0.0.1:5\"\n  auth {\n    password = \"C\"\n  }\n  password = \"C\"\n  tls { key = \"C\" }\n}",
	"users":                     "listener \"socks5\" \"a\" {\n  address = \"127.0.0.1:5\"\n  auth {\n    users = {\n      a = \"C\\n\"\n      C = \"\"\n      \"C:\" = \"C\"\n    }\n  }\n}",
	"users in one line":         "listener \"http\" \"a\" {\n  address = \"127.0.0.1:5\"\n  auth { users = { a = \"C\\t\" } }\n}",
	"users of a wrong type":     "listener \"http\" \"a\" {\n  address = \"127.0.0.1:5\"\n  auth { users = [\"C\"] }\n}",
	"users, a map within":       "listener \"http\" \"a\" {\n  address = \"127.0.0.1:5\"\n  auth { users = { a = { C = \"C\" } } }\n}",
	"users without equals sign": "listener \"http\" \"a\" {\n  address = \"127.0.0.1:5\"\n  auth {\n    users {\n      a = \"C\"\n    }\n  }\n}",
	"users misspelt":            "listener \"http\" \"a\" {\n  address = \"127.0.0.1:5\"\n  auth {\n    user = { a = \"C\" }\n    alice = \"C\"\n  }\n}",
	"users of a tcp listener":   "listener \"tcp\" \"a\" {\n  address = \"127.0.0.1:5\"\n  target = \"h:1\"\n  auth { users = { a = \"C\" } }\n}",
	"users outside of auth":     "listener \"http\" \"a\" {\n  address = \"127.0.0.1:5\"\n  users = { a = \"C\" }\n}",
	"users, broken":             "listener \"http\" \"a\" {\n  auth {\n    users = {\n      a = \"C\"\n      b \"C\"\n    }\n  }\n}",
	"users, from JSON":          "listener \"http\" \"a\" {\n  address = \"127.0.0.1:5\"\n  auth { users = jsondecode(env(\"CANARY_JSON\")) }\n}",
	"auth as an attribute":      "listener \"http\" \"a\" {\n  address = \"127.0.0.1:5\"\n  auth = { users = { a = \"C\" } }\n}",
	"a wrong kind of listener":  "listener \"tpc\" \"a\" {\n  token = \"C\"\n  oauth { client_secret = \"C\" }\n}",
	"env in open blocks":        "log {\n  level = env(\"CANARY\")\n  format = env(\"CANARY\")\n}\ndaemon {\n  run_dir = env(\"CANARY\")\n  drain_timeout = env(\"CANARY\")\n  max_connections = env(\"CANARY\")\n}\nmetrics { address = env(\"CANARY\") }\ncontrol { address = env(\"CANARY\") }",
	"env in a listener":         "listener \"tcp\" \"a\" {\n  address = env(\"CANARY\")\n  target = \"${env(\"CANARY\")}:x\"\n  tcp { backlog = env(\"CANARY\") }\n}",
	"env in a route":            "route \"a\" {\n  match {\n    hosts = [\"${env(\"CANARY\")}/8\", env(\"CANARY\"), \"a b${env(\"CANARY\")}\"]\n    ports = [env(\"CANARY\")]\n  }\n  upstreams = [env(\"CANARY\")]\n}",
	"at the top":                "token = \"C\"\n",
	"at the top, bare":          "C\n",
	"after the end":             "upstream \"acme\" \"a\" {\n}\n  token = \"C\"\n}\n",
	"unclosed before":           "log {\nupstream \"acme\" \"a\" {\n  token = \"C\"\n}\n",
	"label without end":         "upstream \"acme \"a\" {\n  token = \"C\"\n}",
	"label without start":       "upstream acme\" \"a\" { token = \"C\" }",
	"three labels":              "upstream \"acme\" \"a\" \"C\" {\n}",
	"comments":                  "upstream \"acme\" \"a\" {\n  token /* C */ = \"C\" // C\n  # C\n  url = 5 # C\n  count = \"x\" /* C */\n}",
	"comment unclosed":          "upstream \"acme\" \"a\" {\n  token = \"C\" /* C\n}",
	"not UTF-8":                 "upstream \"acme\" \"a\" {\n  token = \"C\xff\"\n}",
	"attribute in quotes":       "upstream \"acme\" \"a\" {\n  \"C\" = \"C\"\n}",
	"null":                      "upstream \"acme\" \"a\" {\n  token = { a = \"C\" }[null]\n  url = null.C\n}",
	"nested too deeply":         "upstream \"acme\" \"a\" {\n  token = " + strings.Repeat("[", 60000) + "\"C\"\n}",
}

func canaryFiles(t *testing.T) {
	t.Helper()
	t.Chdir(t.TempDir())
	t.Setenv("CANARY", canary)
	t.Setenv("CANARY_JSON", `{"secret": "`+canary+`", "`+canary+`": 1}`)
	writeFiles(t, map[string]string{"canary.txt": canary})
}

func diagnoseText(t *testing.T, source string) (*Config, diag.Diagnostics) {
	t.Helper()
	writeFiles(t, map[string]string{"main.hcl": source})
	return diagnose("main.hcl")
}

// TestNoMistakePrintsASecret makes every mistake that we could think of next to
// a secret.
func TestNoMistakePrintsASecret(t *testing.T) {
	canaryFiles(t)
	for name, source := range mistakes {
		t.Run(name, func(t *testing.T) {
			for _, secret := range []string{canary, base64.StdEncoding.EncodeToString([]byte(canary)), canary + "=", "a" + strings.ToLower(canary)} {
				cfg, diags := diagnoseText(t, inValues(source, secret))
				if len(diags) == 0 {
					t.Error("no mistake is reported")
				}
				all := everything(t, cfg, diags)
				if p := leaked(all); p != "" || strings.Contains(all, strings.ToLower(canary)) {
					t.Errorf("%q of the canary is printed:\n%s", p, all)
				}
			}
		})
	}
}

// inValues puts the secret where a mistake says C.
func inValues(source, secret string) string {
	var b strings.Builder
	for i, r := range source {
		alone := r == 'C' && (i == 0 || !isWord(source[i-1])) && (i+1 == len(source) || !isWord(source[i+1]))
		if alone {
			b.WriteString(secret)
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}

func isWord(c byte) bool {
	return c == '_' || c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z'
}

const planted = `log {
  level = "info"
}
plugin "acme" {
  command = ["/a"]
  env = {
    ACME = "C"
  }
}
upstream "acme" "a" {
  url   = "u"
  token = "C"
  headers = { a = "C" }
  old = <<EOT
C
C==
EOT
  oauth {
    client_id     = "i"
    client_secret = "C"
  }
  hosts = [
    "C",
  ]
}
upstream "acme" "b" { url = "C" }
route "r" { upstreams = [upstream.acme.a] }
`

// TestNoEditPrintsASecret makes every edit of one place to a configuration:
// each byte dropped, each place given each of the signs that mean something.
func TestNoEditPrintsASecret(t *testing.T) {
	canaryFiles(t)
	base := strings.ReplaceAll(planted, `"C`, `"`+canary)
	base = strings.ReplaceAll(base, "\nC", "\n"+canary)
	check := func(source string) {
		t.Helper()
		f, problems := parseFile("main.hcl", []byte(source))
		p := parserFor(f)
		p.report(problems...)
		p.defaults()
		p.file(f)
		p.references()
		diags := append(p.diags, p.cfg.DecodeUpstreams(map[string]PluginSchema{"acme": {Block: acme}})...)
		if piece := leaked(printed(t, diags)); piece != "" {
			t.Fatalf("%q of the canary is printed:\n%s\nof:\n%s", piece, printed(t, diags), source)
		}
	}
	inserts := []string{`"`, "=", "{", "}", "\n", "${", "<<EOT\n", "#", "/*", "[", " ", ",", "%{", `\`}
	if testing.Short() {
		inserts = inserts[:4]
	}
	for i := 0; i < len(base); i += editStride {
		check(base[:i] + base[i+1:])
		check(base[:i])
		for _, s := range inserts {
			check(base[:i] + s + base[i:])
		}
	}
	for i := 0; i < len(base); i++ { // each line dropped
		if end := strings.IndexByte(base[i:], '\n'); end >= 0 {
			check(base[:i] + base[i+end+1:])
			i += end
		}
	}
}

func TestPluginsWordsAreScrubbed(t *testing.T) {
	canaryFiles(t)
	cfg, diags := diagnoseText(t, `upstream "acme" "a" {
  url   = "u"
  token = env("CANARY")
  oauth {
    client_id     = "i"
    client_secret = "${env("CANARY")}-longer"
  }
}
route "r" { upstreams = [upstream.acme.a] }
`)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	d := cfg.PluginDiagnostic("acme.a", &pluginv1.Diagnostic{
		Summary: "refused: " + canary,
		Detail:  "tried \x1b[31m" + canary + "-longer",
		Path:    []string{"oauth", "client_secret"},
	})
	const want = `Error: refused: (sensitive)
  on main.hcl line 6, in upstream "acme" "a":
   6:     client_secret =

  tried �[31m(sensitive)
`
	if got := d.String(); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

func TestFormatErrorHoldsNoSecret(t *testing.T) {
	for _, source := range mistakes {
		_, err := Format([]byte(inValues(source, canary)), "main.hcl")
		var diags diag.Diagnostics
		if err != nil && !errors.As(err, &diags) {
			t.Fatalf("%T, want Diagnostics", err)
		}
		if p := leaked(fmt.Sprint(err) + printed(t, diags)); p != "" {
			t.Errorf("%q of the canary is printed: %v", p, err)
		}
	}
	if _, err := os.Stat("main.hcl"); err == nil {
		t.Error("Format wrote a file")
	}
}
