package config

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tunneld/tunneld/core/diag"
	"github.com/tunneld/tunneld/core/internal/route"
	"github.com/tunneld/tunneld/core/internal/tunnel"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

func parseText(t *testing.T, source string) (*Config, diag.Diagnostics) {
	t.Helper()
	t.Chdir(t.TempDir())
	writeFiles(t, map[string]string{"main.hcl": source})
	return Parse("main.hcl")
}

// TestExampleHasTheDocumentedDefaults: testdata/example.hcl writes out every
// default of the documentation, testdata/minimal.hcl leaves all of them out.
func TestExampleHasTheDocumentedDefaults(t *testing.T) {
	t.Setenv("VCAP_SERVICES", `{"connectivity": []}`)
	example, diags := Parse("testdata/example.hcl")
	if len(diags) > 0 {
		t.Fatal(printed(t, diags))
	}
	minimal, diags := Parse("testdata/minimal.hcl")
	if len(diags) > 0 {
		t.Fatal(printed(t, diags))
	}
	example.src, minimal.src = nil, nil
	if !reflect.DeepEqual(example.Log, minimal.Log) || !reflect.DeepEqual(example.Daemon, minimal.Daemon) ||
		!reflect.DeepEqual(example.Listeners, minimal.Listeners) || !reflect.DeepEqual(example.Upstreams, minimal.Upstreams) {
		t.Errorf("a default differs from the example's:\n%#v\n%#v", example.Listeners, minimal.Listeners)
	}
	socket := tunnel.SocketOptions{Nodelay: true, KeepaliveIdle: 30 * time.Second, KeepaliveInterval: 10 * time.Second, KeepaliveCount: 6}
	wantListener := Listener{
		Kind: "tcp", Name: "orders", Addresses: []string{"127.0.0.1:5432"},
		Target:  tunnel.Target{Host: "orders-db.corp", Port: 5432},
		Timeout: Timeouts{Handshake: 10 * time.Second, Dial: 35 * time.Second, HalfClose: time.Minute},
		Socket:  socket,
	}
	want := Config{
		Log:     Log{Level: slog.LevelInfo, Format: "text", Access: true},
		Metrics: Metrics{Addresses: []string{"127.0.0.1:9464"}},
		Control: Control{Address: "unix:///run/tunneld/control.sock"},
		Daemon:  Daemon{PluginDir: "/usr/lib/tunneld/plugins", ShutdownTimeout: 30 * time.Second, DrainTimeout: 10 * time.Minute},
		Plugins: []Plugin{{
			Name: "acme", Command: []string{"/usr/lib/tunneld/tunneld-plugin-acme"},
			SHA256: strings.Repeat("ab", 32), Env: map[string]string{"ACME_REGION": "eu"},
		}},
		Upstreams: []Upstream{
			{Type: "direct", Name: "local", Socket: socket, Hash: minimal.Upstreams[0].Hash},
			{Type: "sapsocks", Name: "onprem", Socket: socket},
			{Type: "acme", Name: "other", Socket: socket},
		},
		Routes: []Route{
			{
				Name: "databases",
				Match: route.Rule{
					Listeners: []string{"tcp.orders"},
					Hosts:     []string{"*.corp", "db.example", "10.0.0.0/8"},
					Ports:     []string{"5432", "9000-9100"},
				},
				Upstreams: []string{"sapsocks.onprem", "direct.local"},
			},
			{Name: "rest", Upstreams: []string{"direct.local", "acme.other"}},
		},
	}
	want.Listeners = append(want.Listeners, wantListener)
	for _, l := range []Listener{{Kind: "socks5", Name: "apps", Addresses: []string{"127.0.0.1:1080"}}, {Kind: "http", Name: "web", Addresses: []string{"127.0.0.1:3128"}}} {
		l.Timeout, l.Socket = wantListener.Timeout, socket
		want.Listeners = append(want.Listeners, l)
	}
	for i := range example.Listeners {
		if l := &example.Listeners[i]; l.Protocol == nil || l.Protocol.Asks() != (l.Kind != "tcp") {
			t.Errorf("listener %s speaks %#v", l.ID(), l.Protocol)
		}
		example.Listeners[i].Protocol = nil
	}
	for _, field := range []string{"Log", "Metrics", "Control", "Daemon", "Plugins", "Upstreams", "Listeners", "Routes"} {
		got, want := reflect.ValueOf(*example).FieldByName(field).Interface(), reflect.ValueOf(want).FieldByName(field).Interface()
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\n got %#v\nwant %#v", field, dump(got), dump(want))
		}
	}
	if types := example.PluginTypes(); !reflect.DeepEqual(types, []string{"sapsocks", "acme"}) {
		t.Errorf("PluginTypes: %q", types)
	}
}

// dump prints fields that Format hides; no secret is in these tests.
func dump(v any) string {
	rv := reflect.ValueOf(v)
	if rv.Kind() != reflect.Slice {
		return fmt.Sprintf("%+v", v)
	}
	var b strings.Builder
	for i := range rv.Len() {
		for j := range rv.Index(i).NumField() {
			fmt.Fprintf(&b, "%s=%#v ", rv.Index(i).Type().Field(j).Name, rv.Index(i).Field(j).Interface())
		}
		b.WriteString("\n")
	}
	return b.String()
}

func TestDecodeUpstreams(t *testing.T) {
	t.Setenv("ACME_TOKEN", "from the environment")
	cfg, diags := parseText(t, `
upstream "acme" "a" {
  url     = "u"
  token   = env("ACME_TOKEN")
  headers = { b = "2", a = "1", c = null }
  size    = "64KiB"
  wait    = "1m30.5s"
  count   = null
  mapping "m" {
    to = "x"
  }
}
upstream "acme" "b" { url = "u" }
upstream "acme" "c" { url = "u" }
upstream "other" "d" { anything = "u" }
upstream "direct" "e" {}
listener "tcp" "l" {
  address = "127.0.0.1:0"
  target  = "label"
}
route "r" { upstreams = [upstream.acme.a, upstream.acme.b, upstream.acme.c, upstream.other.d, upstream.direct.e] }
`)
	diags = append(diags, cfg.DecodeUpstreams(map[string]PluginSchema{"acme": {Block: acme}})...)
	if len(diags) > 0 {
		t.Fatal(printed(t, diags))
	}
	const want = `{"headers":{"a":"1","b":"2"},"mapping":{"m":{"to":"x"}},"size":65536,"token":"from the environment","url":"u","wait":"90.5s"}`
	if got := string(cfg.Upstreams[0].JSON); got != want {
		t.Errorf("JSON:\n got %s\nwant %s", got, want)
	}
	if got, want := string(cfg.Upstreams[1].JSON), `{"size":32768,"url":"u","wait":"10s"}`; got != want {
		t.Errorf("JSON with defaults:\n got %s\nwant %s", got, want)
	}
	if cfg.Upstreams[1].Hash == cfg.Upstreams[2].Hash || len(cfg.Upstreams[1].Hash) != 64 {
		t.Errorf("hashes of equal values and unequal names: %q, %q", cfg.Upstreams[1].Hash, cfg.Upstreams[2].Hash)
	}
	if u := cfg.Upstreams[3]; u.JSON != nil || u.Hash != "" {
		t.Errorf("%s has values without a schema", u.ID())
	}
}

func TestBrokenSchema(t *testing.T) {
	cfg, _ := parseText(t, `upstream "acme" "a" { url = "u" }`+"\n")
	got := printed(t, cfg.DecodeUpstreams(map[string]PluginSchema{"acme": {Block: &pluginv1.Block{Attributes: []*pluginv1.Attribute{{Name: "url"}}}}}))
	const want = `Error: The plugin "acme" has a broken schema
  on main.hcl line 1, in upstream "acme" "a":
   1: upstream "acme" "a" {

  The plugin's author has to fix it: check schema: "url": unknown type 0

`
	if got != want || cfg.Upstreams[0].JSON != nil {
		t.Errorf("got %s\nwant %s", got, want)
	}
}

const placed = `listener "tcp" "orders" {
  address = "127.0.0.1:5432"
  target  = "orders:5432"
  tcp {
    backlog = 5
  }
}
upstream "acme" "a" {
  url = "u"
  hosts = [
    "a",
    "b",
  ]
  mapping "x" {
    to = "1"
  }
  mapping "y" {
    to = "2"
  }
}
route "r" { upstreams = [upstream.acme.a] }
`

func TestBlockDiagnostic(t *testing.T) {
	cfg, diags := parseText(t, placed)
	if len(diags) > 0 {
		t.Fatal(diags)
	}
	for _, c := range []struct{ id, attribute, want string }{
		{"listener.tcp.orders", "address", "Error: S\n  on main.hcl line 2, in listener \"tcp\" \"orders\":\n   2:   address = \"127.0.0.1:5432\"\n\n  D\n"},
		{"listener.tcp.orders", "tcp.backlog", "Error: S\n  on main.hcl line 5, in listener \"tcp\" \"orders\":\n   5:     backlog = 5\n\n  D\n"},
		{"listener.tcp.orders", "open", "Error: S\n  on main.hcl line 1, in listener \"tcp\" \"orders\":\n   1: listener \"tcp\" \"orders\" {\n\n  D\n"},
		{"upstream.acme.a", "", "Error: S\n  on main.hcl line 8, in upstream \"acme\" \"a\":\n   8: upstream \"acme\" \"a\" {\n\n  D\n"},
		{"metrics", "address", "Error: S\n\n  D\n"},
	} {
		if got := cfg.BlockDiagnostic(c.id, c.attribute, "S", "D").String(); got != c.want {
			t.Errorf("%s %s:\n got %s\nwant %s", c.id, c.attribute, got, c.want)
		}
	}
	if got := new(Config).BlockDiagnostic("log", "level", "S", "D"); got != (diag.Diagnostic{Summary: "S", Detail: "D"}) {
		t.Errorf("of a configuration without a source: %+v", got)
	}
}

func TestPluginDiagnosticFindsItsPlace(t *testing.T) {
	cfg, _ := parseText(t, placed)
	for _, c := range []struct {
		path []string
		line int
	}{
		{nil, 8},
		{[]string{"url"}, 9},
		{[]string{"hosts"}, 10},
		{[]string{"hosts", "1"}, 12},
		{[]string{"hosts", "7"}, 10},
		{[]string{"mapping", "y", "to"}, 18},
		{[]string{"mapping", "y", "nothing"}, 17},
		{[]string{"mapping", "0", "to"}, 15},
		{[]string{"oauth", "client_id"}, 8},
	} {
		d := cfg.PluginDiagnostic("acme.a", &pluginv1.Diagnostic{Summary: "S", Path: c.path, Severity: pluginv1.Severity_SEVERITY_WARNING})
		if d.Line != c.line || !d.Warning || d.Block != `upstream "acme" "a"` {
			t.Errorf("%q: line %d (%+v), want %d", c.path, d.Line, d, c.line)
		}
	}
	if d := cfg.PluginDiagnostic("acme.gone", &pluginv1.Diagnostic{Summary: "S"}); d.Line != 0 || d.Warning {
		t.Errorf("of an unknown upstream: %+v", d)
	}
}

func TestParsePaths(t *testing.T) {
	t.Chdir(t.TempDir())
	writeFiles(t, map[string]string{
		"conf/20.hcl":       `upstream "direct" "b" {}` + "\n",
		"conf/10.hcl":       `upstream "direct" "a" {}` + "\n",
		"conf/.hidden.hcl":  "broken",
		"conf/notes.txt":    "broken",
		"conf/sub/more.hcl": "broken",
	})
	cfg, diags := Parse("conf")
	if diags.HasErrors() || len(cfg.Upstreams) != 2 || cfg.Upstreams[0].Name != "a" {
		t.Errorf("%s %v", printed(t, diags), cfg)
	}
	_, diags = Parse("nowhere")
	if got, want := printed(t, diags), "Error: No configuration\n  on nowhere:\n\n  It cannot be opened: there is no such file.\n\n"; got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
}

// TestProblemsAreBounded: as many as anybody reads are told, of each kind, and a
// million take no more time and memory to tell.
func TestProblemsAreBounded(t *testing.T) {
	var b strings.Builder
	b.WriteString("upstream \"acme\" \"a\" {\n")
	for i := range 5000 {
		fmt.Fprintf(&b, "  a%d = file(\"./none\")\n", i)
	}
	b.WriteString("}\n")
	for i := range 5000 {
		fmt.Fprintf(&b, "upstream \"direct\" \"d%d\" {}\nnonsense {}\n", i)
	}
	cfg, diags := ParseFrom(strings.NewReader(b.String()), "main.hcl")
	diags = append(diags, cfg.DecodeUpstreams(map[string]PluginSchema{"acme": {Block: acme}})...)
	kinds := map[string]int{}
	last := 0
	for _, d := range diags {
		kinds[fmt.Sprintf("warning %v, machine %v", d.Warning, d.Machine)]++
		if strings.HasSuffix(d.Detail, " There may be more: only 100 are shown.") {
			last++
		}
	}
	want := map[string]int{"warning false, machine false": maxProblems, "warning true, machine false": maxProblems, "warning false, machine true": maxProblems}
	if !maps.Equal(kinds, want) || last != 3 {
		t.Errorf("%v, %d say that there are more", kinds, last)
	}
}

// TestSizeIsBounded: a configuration of one file, of several, and from standard
// input.
func TestSizeIsBounded(t *testing.T) {
	withoutRace(t)
	t.Chdir(t.TempDir())
	const most = "The configuration is larger than 4 MiB"
	line := "# " + strings.Repeat("x", 61) + "\n"
	whole := strings.Repeat(line, MaxSize/len(line))
	half := whole[:MaxSize/2]
	writeFiles(t, map[string]string{
		"enough.hcl":     whole,
		"large.hcl":      whole + "#",
		"conf/one.hcl":   half,
		"conf/three.hcl": half,
		"conf/two.hcl":   "#",
	})
	for path, bad := range map[string]string{"enough.hcl": "", "large.hcl": "large.hcl", "conf": "conf/two.hcl"} {
		_, diags := Parse(path)
		if bad == "" && diags.HasErrors() || bad != "" && (len(diags) == 0 || diags[0].File != bad || !strings.Contains(diags[0].Detail, most)) {
			t.Errorf("%s: %v", path, diags)
		}
	}
	if _, diags := ParseFrom(strings.NewReader(whole), "standard input"); diags.HasErrors() {
		t.Error(diags)
	}
	if _, diags := ParseFrom(strings.NewReader(whole+"#"), "standard input"); !strings.Contains(diags.Error(), most) {
		t.Error(diags)
	}
}

// TestByteOrderMark: some editors write one; it is no part of a file.
func TestByteOrderMark(t *testing.T) {
	t.Chdir(t.TempDir())
	const source = `upstream "acme" "a" { url = file("./url") }`
	writeFiles(t, map[string]string{"main.hcl": "\ufeff" + source, "url": "\ufeffhttps://a.example"})
	read := func(cfg *Config, diags diag.Diagnostics) {
		t.Helper()
		diags = append(diags, cfg.DecodeUpstreams(map[string]PluginSchema{"acme": {Block: acme}})...)
		if len(cfg.Upstreams) != 1 || !strings.Contains(string(cfg.Upstreams[0].JSON), `"https://a.example"`) {
			t.Errorf("%+v %v", cfg.Upstreams, diags)
		}
	}
	read(Parse("main.hcl"))
	read(ParseFrom(strings.NewReader("\ufeff"+source), "standard input"))
}

func TestFileIsBounded(t *testing.T) {
	t.Chdir(t.TempDir())
	writeFiles(t, map[string]string{"main.hcl": `upstream "acme" "a" { url = file("./big") }`, "big": strings.Repeat("x", maxValueFile+1)})
	_, diags := Parse("main.hcl")
	if !strings.Contains(diags.Error(), `The file "./big" cannot be read: The reason: it is larger than 1 MiB.`) {
		t.Error(diags)
	}
	cfg, diags := Parse(filepath.Join("..", filepath.Base(mustGetwd(t)), "main.hcl"))
	if !strings.Contains(diags.Error(), "larger than") || len(cfg.Upstreams) != 1 {
		t.Errorf("the path does not start from the file's folder: %v", diags)
	}
}

func mustGetwd(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestFormat(t *testing.T) {
	got, err := Format([]byte("log {\nlevel=\"info\"   \n  access   = true # why\n}\n"), "main.hcl")
	if want := "log {\n  level  = \"info\"\n  access = true # why\n}\n"; err != nil || string(got) != want {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
	_, err = Format([]byte("log {\n"), "main.hcl")
	var diags diag.Diagnostics
	if !errors.As(err, &diags) || diags[0].Line != 1 {
		t.Errorf("got %v, want diagnostics", err)
	}
	for _, name := range []string{"testdata/example.hcl", "testdata/minimal.hcl"} {
		src, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := Format(src, name); err != nil || string(got) != string(src) {
			t.Errorf("%s is not in the canonical layout (%v)", name, err)
		}
	}
}

// TestLargeConfiguration: reading takes processor time in proportion to what is
// read. Four times as much takes four times as long; a check that compares all with
// all, sixteen times.
func TestLargeConfiguration(t *testing.T) {
	withoutRace(t)
	const routes = 2500
	once, four := parseTime(t, routes), parseTime(t, 4*routes)
	if ratio := float64(four) / float64(once); ratio > 9 {
		t.Errorf("%d routes take %v, %d take %v: %.1f times as much", routes, once, 4*routes, four, ratio)
	}
}

// parseTime is how long a processor works on a configuration with that many
// routes, a tenth as many listeners, and every other part in proportion: the least
// of three times.
func parseTime(t *testing.T, routes int) time.Duration {
	t.Helper()
	var b strings.Builder
	b.WriteString("upstream \"direct\" \"d\" {}\n")
	for i := range routes / 10 {
		fmt.Fprintf(&b, "listener \"tcp\" \"l%d\" {\n  address = \"127.0.0.1:%d\"\n  target = \"t:1\"\n}\n", i, i+1)
	}
	for i := range routes {
		fmt.Fprintf(&b, "route \"r%d\" {\n  match {\n    listeners = [listener.tcp.l%d]\n    hosts = [\"h%d.corp\"]\n  }\n  upstreams = [upstream.direct.d]\n}\n", i, i%(routes/10), i)
	}
	least := time.Duration(math.MaxInt64)
	for range 3 {
		start := processorTime(t)
		cfg, diags := parseText(t, b.String())
		least = min(least, processorTime(t)-start)
		if len(diags) > 0 || len(cfg.Routes) != routes {
			t.Fatal(diags.Error())
		}
	}
	return least
}

// processorTime is what this process has used: unlike the clock, it does not run
// while other processes have their turn.
func processorTime(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
