package hclbody

import (
	"bytes"
	"strings"
	"testing"

	"github.com/tunneld/tunneld/internal/schema"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// limited has each limit, and what excludes and needs what.
func limited() *pluginv1.Block {
	with := func(t *pluginv1.Type, change func(*pluginv1.Type)) *pluginv1.Type {
		t = typ(t.GetKind(), t.GetElement())
		change(t)
		return t
	}
	mode := schema.OneOf("header", "query")
	line := with(str, func(t *pluginv1.Type) { t.OneLine = true })
	return &pluginv1.Block{
		Targets: pluginv1.Targets_TARGETS_LABEL,
		Attributes: []*pluginv1.Attribute{
			{Name: "mode", Type: mode, Doc: "Where it goes."},
			{Name: "key", Type: mode, Sensitive: true},
			{Name: "modes", Type: schema.List(mode)},
			{Name: "each", Type: schema.Map(schema.Between(num, `1`, ``))},
			{Name: "time", Type: schema.Between(dur, `"1s"`, `"60s"`)},
			{Name: "ping", Type: schema.OrZero(schema.Between(dur, `"1s"`, ``))},
			{Name: "size", Type: schema.Between(siz, `1`, `65536`)},
			{Name: "count", Type: schema.Between(num, `1`, ``)},
			{Name: "ratio", Type: schema.Between(flo, ``, `0.5`)},
			{Name: "id", Type: schema.Between(str, ``, `3`)},
			{Name: "some", Type: schema.Between(schema.List(str), `1`, `2`)},
			{Name: "word", Type: with(str, func(t *pluginv1.Type) { t.Pattern = "a+|b" })},
			{Name: "line", Type: line},
			{Name: "lines", Type: schema.Map(line)},
			{Name: "file", Type: with(str, func(t *pluginv1.Type) { t.Path = pluginv1.PathUse_PATH_USE_FILE })},
			{Name: "whole", Type: str, ConflictsWith: []string{"part", "login"}},
			{Name: "part", Type: str},
			{Name: "user", Type: str, RequiredWith: []string{"password"}},
			{Name: "password", Type: num},
		},
		Blocks: []*pluginv1.NestedBlock{
			{Name: "login", Nesting: pluginv1.Nesting_NESTING_SINGLE, RequiredWith: []string{"part"}, Deprecated: "Use part.", Body: &pluginv1.Block{
				Attributes: []*pluginv1.Attribute{{Name: "count", Type: schema.Between(num, `1`, ``)}},
			}},
			{Name: "each_of", Nesting: pluginv1.Nesting_NESTING_REPEATED, ConflictsWith: []string{"part"}, Body: &pluginv1.Block{
				Attributes: []*pluginv1.Attribute{{Name: "count", Type: schema.Between(num, `1`, ``)}},
			}},
		},
	}
}

// TestLimits: the daemon finds in HCL, with its line, what the SDK finds in JSON, with
// the same words.
func TestLimits(t *testing.T) {
	if err := schema.Check(limited()); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ hcl, json, want string }{
		{`mode = "header"`, `{"mode": "header"}`, ""},
		{`mode = ""`, `{"mode": ""}`, `1: Wrong value for "mode": It is one of "header", "query".`},
		{`mode = "quary"`, `{"mode": "quary"}`, `1: Wrong value for "mode": Did you mean "query"? It is one of "header", "query".`},
		{`key = "quary"`, `{"key": "quary"}`, `1: Wrong value for "key": It is one of "header", "query".`},
		{"modes = [\n\"query\",\n\"x\"]", `{"modes": ["query", "x"]}`, `3: Wrong value for element 2 of "modes": It is one of "header", "query".`},
		{`each = { a = 0 }`, `{"each": {"a": 0}}`, `1: "each" is out of range: One of its values does not fit. It must be at least 1.`},
		{`time = "60s"`, `{"time": "60s"}`, ""},
		{`time = "0s"`, `{"time": "0s"}`, `1: "time" is out of range: It must lie between "1s" and "1m".`},
		{`time = "61s"`, `{"time": "61s"}`, `1: "time" is out of range: It must lie between "1s" and "1m".`},
		{`ping = "0s"`, `{"ping": "0s"}`, ""},
		{`ping = "1ms"`, `{"ping": "0.001s"}`, `1: "ping" is out of range: It must be "0s" or at least "1s".`},
		{`size = 0`, `{"size": 0}`, `1: "size" is out of range: It must lie between "1B" and "64KiB".`},
		{`count = 0`, `{"count": 0}`, `1: "count" is out of range: It must be at least 1.`},
		{`ratio = 0.6`, `{"ratio": 0.6}`, `1: "ratio" is out of range: It must be at most 0.5.`},
		{`id = "ää"`, `{"id": "ää"}`, `1: "id" is out of range: It must have at most 3 bytes.`},
		{`some = []`, `{"some": []}`, `1: "some" is out of range: It must have between 1 and 2 elements.`},
		{`word = "aaa"`, `{"word": "aaa"}`, ""},
		{`word = "ab"`, `{"word": "ab"}`, `1: Wrong value for "word": It must match the pattern a+|b.`},
		{`word = "xb"`, `{"word": "xb"}`, `1: Wrong value for "word": It must match the pattern a+|b.`},
		{`line = "a\n"`, `{"line": "a\n"}`, `1: line ends in a line break: Wrap the value in trimspace(…) if it comes from a file.`},
		{`lines = { "a\tb" = "" }`, `{"lines": {"a\tb": ""}}`, `1: lines contains a control character: Write it without line breaks, tabs and the like.`},
		{`file = "/etc/"`, `{"file": "/etc/"}`, `1: Wrong value for "file": It must be the path of a file, without a slash at its end.`},
		{"part = \"x\"\nwhole = \"x\"", `{"part": "x", "whole": "x"}`, `2: Both "whole" and "part": They exclude each other: leave one of the two out.`},
		{"part = \"\"\nwhole = \"x\"", `{"part": "", "whole": "x"}`, ""},
		{`user = "x"`, `{"user": "x"}`, `1: "user" without "password": Add "password", or leave "user" out.`},
		{"user = \"x\"\npassword = 1", `{"user": "x", "password": 1}`, ""},
		// What is given and wrong is there, and is told once.
		{"user = \"x\"\npassword = \"x\"", ``, `2: Wrong value for "password": It must be a whole number, and the text is not one.`},
		{"part = \"x\"\nlogin {\ncount = 0\n}", `{"part": "x", "login": {"count": 0}}`, "2: Deprecated block \"login\": Use part.\n3: \"count\" is out of range: It must be at least 1."},
		{"login {}", `{"login": {}}`, "1: Deprecated block \"login\": Use part.\n1: \"login\" without \"part\": Add \"part\", or leave \"login\" out."},
		{"each_of {\ncount = 1\n}\neach_of {\ncount = 0\n}", `{"each_of": [{"count": 1}, {"count": 0}]}`, `5: "count" is out of range: It must be at least 1.`},
		{"part = \"x\"\neach_of {}", `{"part": "x", "each_of": [{}]}`, `2: Both "each_of" and "part": They exclude each other: leave one of the two out.`},
	} {
		_, got := decode(t, limited(), c.hcl)
		if got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", c.hcl, got, c.want)
		}
		if c.json == "" {
			continue
		}
		_, problems := schema.Decode(limited(), []byte(c.json))
		var want []string
		for line := range strings.Lines(c.want) {
			if !strings.Contains(line, "Deprecated") {
				_, text, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
				want = append(want, text)
			}
		}
		for i, p := range problems {
			if text := p.Summary + ": " + p.Detail; i >= len(want) || text != want[i] {
				t.Errorf("%s: the SDK says %s", c.json, text)
			}
		}
		if len(problems) < len(want) {
			t.Errorf("%s: the SDK does not say %q", c.json, want[len(problems):])
		}
	}
}

// TestLimitsAreShown: each form of a schema names each limit.
func TestLimitsAreShown(t *testing.T) {
	for format, wants := range map[string][]string{
		"text":     {`Where it goes. [one of "header", "query"]`, `[between "1s" and "1m"]`, `["0s" or at least "1s"]`, "[at most 3 bytes]", "[between 1 and 2 elements]", "[matching a+|b]", "[path of a file]", "[each at least 1]", "[not with part, login]", "[needs password]", "[needs part] Deprecated: Use part.", "\nA target may be a label, without a port.\n"},
		"hcl":      {`# Where it goes. [one of "header", "query"]`, "# [needs part] Deprecated: Use part."},
		"markdown": {`| Where it goes. [one of "header", "query"] |`, "\n[needs part] Deprecated: Use part.\n", `[matching a+\|b]`},
		"json":     {`"one_of": [`, `"minimum": "1s"`, `"maximum": 65536`, `"or_zero": true`, `"pattern": "a+|b"`, `"one_line": true`, `"path": "file"`, `"conflicts_with": [`, `"required_with": [`, `"deprecated": "Use part."`, `"element": {`, `"targets": "label"`},
	} {
		var b bytes.Buffer
		if err := Render(&b, format, "limited", limited()); err != nil {
			t.Fatal(err)
		}
		for _, want := range wants {
			if !strings.Contains(b.String(), want) {
				t.Errorf("%s: %q is not in\n%s", format, want, b.String())
			}
		}
	}
}
