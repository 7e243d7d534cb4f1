package hclbody

import (
	"fmt"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/tunneld/tunneld/internal/schema"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

func typ(k pluginv1.Kind, element ...*pluginv1.Type) *pluginv1.Type {
	t := &pluginv1.Type{Kind: k}
	if len(element) > 0 {
		t.Element = element[0]
	}
	return t
}

var (
	str   = typ(pluginv1.Kind_KIND_STRING)
	boo   = typ(pluginv1.Kind_KIND_BOOL)
	num   = typ(pluginv1.Kind_KIND_INT)
	flo   = typ(pluginv1.Kind_KIND_FLOAT)
	dur   = typ(pluginv1.Kind_KIND_DURATION)
	siz   = typ(pluginv1.Kind_KIND_SIZE)
	lists = typ(pluginv1.Kind_KIND_LIST, typ(pluginv1.Kind_KIND_LIST, num))
	maps  = typ(pluginv1.Kind_KIND_MAP, dur)
)

// every has one attribute of each type and one block of each nesting.
func every() *pluginv1.Block {
	inner := func() *pluginv1.Block {
		return &pluginv1.Block{Attributes: []*pluginv1.Attribute{
			{Name: "need", Type: str, Required: true},
			{Name: "with", Type: dur, DefaultJson: `"1.5s"`},
		}}
	}
	return &pluginv1.Block{
		Doc: "A block of everything.",
		Attributes: []*pluginv1.Attribute{
			{Name: "s", Type: str, Doc: "Some text."},
			{Name: "b", Type: boo},
			{Name: "i", Type: num},
			{Name: "f", Type: flo},
			{Name: "d", Type: dur},
			{Name: "z", Type: siz},
			{Name: "l", Type: lists},
			{Name: "m", Type: maps},
			{Name: "secret", Type: str, Sensitive: true, DefaultJson: `"hidden"`},
			{Name: "def", Type: siz, DefaultJson: `65536`, Doc: "With | a default."},
			{Name: "old", Type: str, Deprecated: `Use "s".`},
		},
		Blocks: []*pluginv1.NestedBlock{
			{Name: "one", Nesting: pluginv1.Nesting_NESTING_SINGLE, Body: inner()},
			{Name: "many", Nesting: pluginv1.Nesting_NESTING_REPEATED, Body: inner()},
			{Name: "named", Nesting: pluginv1.Nesting_NESTING_LABELLED, Body: inner()},
		},
	}
}

// decode returns the JSON, and the problems a line each.
func decode(t *testing.T, block *pluginv1.Block, source string) (string, string) {
	t.Helper()
	f, diags := hclsyntax.ParseConfig([]byte(source), "x.hcl", hcl.InitialPos)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	d := Decoder{Eval: func(e hclsyntax.Expression) (cty.Value, bool) {
		v, diags := e.Value(nil)
		return v, !diags.HasErrors()
	}}
	values, problems := d.Decode(block, f.Body.(*hclsyntax.Body), hcl.Range{Start: hcl.InitialPos})
	var lines []string
	for _, p := range problems {
		lines = append(lines, fmt.Sprintf("%d: %s: %s", p.Range.Start.Line, p.Summary, p.Detail))
	}
	return string(schema.JSON(values)), strings.Join(lines, "\n")
}

func TestDecodeValues(t *testing.T) {
	if err := schema.Check(every()); err != nil {
		t.Fatal(err)
	}
	const rest = `"def":65536,"secret":"hidden"`
	for _, c := range []struct{ source, want string }{
		{``, `{` + rest + `}`},
		{`s = "<&>"`, `{"def":65536,"s":"<&>","secret":"hidden"}`},
		{`s = null`, `{` + rest + `}`},
		{`b = true`, `{"b":true,` + rest + `}`},
		{`b = "false"`, `{"b":false,` + rest + `}`},
		{`i = 9007199254740992`, `{"def":65536,"i":9007199254740992,"secret":"hidden"}`},
		{`i = "-42"`, `{"def":65536,"i":-42,"secret":"hidden"}`},
		{`i = 1e3`, `{"def":65536,"i":1000,"secret":"hidden"}`},
		{`f = 0.1`, `{"def":65536,"f":0.1,"secret":"hidden"}`},
		{`f = "2.50"`, `{"def":65536,"f":2.5,"secret":"hidden"}`},
		{`d = "1m30.25s"`, `{"d":"90.25s",` + rest + `}`},
		{`d = "0s"`, `{"d":"0s",` + rest + `}`},
		{`d = "1ns"`, `{"d":"0.000000001s",` + rest + `}`},
		{`z = "64KiB"`, `{"def":65536,"secret":"hidden","z":65536}`},
		{`z = 512`, `{"def":65536,"secret":"hidden","z":512}`},
		{`z = "1 MB"`, `{"def":65536,"secret":"hidden","z":1000000}`},
		{`l = [[1, 2], [], ["3"]]`, `{"def":65536,"l":[[1,2],[],[3]],"secret":"hidden"}`},
		{`m = { b = "1s", "a b" = "2s", c = null }`, `{"def":65536,"m":{"a b":"2s","b":"1s"},"secret":"hidden"}`},
		{`def = null`, `{` + rest + `}`},
		{`def = 0`, `{"def":0,"secret":"hidden"}`},
		{"one {\n need = \"x\"\n}", `{"def":65536,"one":{"need":"x","with":"1.5s"},"secret":"hidden"}`},
		{"many {\n need = \"x\"\n}\nmany {\n need = \"y\"\n with = \"2s\"\n}", `{"def":65536,"many":[{"need":"x","with":"1.5s"},{"need":"y","with":"2s"}],"secret":"hidden"}`},
		{"named \"a\" {\n need = \"x\"\n}\nnamed \"b\" {\n need = \"y\"\n}", `{"def":65536,"named":{"a":{"need":"x","with":"1.5s"},"b":{"need":"y","with":"1.5s"}},"secret":"hidden"}`},
	} {
		got, problems := decode(t, every(), c.source)
		if got != c.want || problems != "" {
			t.Errorf("%s:\n got %s\nwant %s\n%s", c.source, got, c.want, problems)
		}
	}
}

func TestDecodeProblems(t *testing.T) {
	const unit = `A duration needs a unit: "500ms", "30s", "5m", "1h".`
	const size = `A size is a whole number and a unit: "512B", "64KiB", "1MiB", "1MB".`
	for _, c := range []struct{ source, want string }{
		{`s = 7`, `1: Wrong value for "s": It must be text in quotes, not a number. Write it in double quotes.`},
		{`s = {}`, `1: Wrong value for "s": It must be text in quotes, not a map.`},
		{`b = 1`, `1: Wrong value for "b": It must be true or false, not a number.`},
		{`b = "TRUE"`, `1: Wrong value for "b": It must be true or false, not text.`},
		{`i = 9007199254740993`, `1: Wrong value for "i": A whole number must lie within ±9007199254740992 (2^53).`},
		{`i = "9007199254740993"`, `1: Wrong value for "i": A whole number must lie within ±9007199254740992 (2^53).`},
		{`i = 1e400`, `1: Wrong value for "i": A whole number must lie within ±9007199254740992 (2^53).`},
		{`i = 1.5`, `1: Wrong value for "i": It must be a whole number, without a fraction.`},
		{`i = " 1"`, `1: Wrong value for "i": It must be a whole number, and the text is not one.`},
		{`i = []`, `1: Wrong value for "i": It must be a whole number, not a list.`},
		{`f = 1e400`, `1: Wrong value for "f": The number is too large.`},
		{`f = "NaN"`, `1: Wrong value for "f": It must be a number, and the text is not one.`},
		{`f = true`, `1: Wrong value for "f": It must be a number, not true or false.`},
		{`d = 30`, `1: Wrong value for "d": ` + unit},
		{`d = "30"`, `1: Wrong value for "d": ` + unit},
		{`d = "-1s"`, `1: Wrong value for "d": A duration cannot be negative. "0s" stands for none.`},
		{`d = "soon"`, `1: Wrong value for "d": A duration is a number and a unit: "500ms", "30s", "5m", "1h30m".`},
		{`d = [1]`, `1: Wrong value for "d": It must be a duration such as "30s", not a list.`},
		{`z = -1`, `1: Wrong value for "z": A size cannot be negative.`},
		{`z = 1.5`, `1: Wrong value for "z": A size in bytes is a whole number.`},
		{`z = "1.5MB"`, `1: Wrong value for "z": ` + size},
		{`z = "-1MB"`, `1: Wrong value for "z": A size cannot be negative.`},
		{`z = "9007199254740993"`, `1: Wrong value for "z": The size is too large.`},
		{`z = 1e300`, `1: Wrong value for "z": The size is too large.`},
		{`z = true`, `1: Wrong value for "z": It must be a size such as "64KiB", not true or false.`},
		{`l = 1`, `1: Wrong value for "l": It must be a list in [ ], not a number. Write [ and ] around it.`},
		{"l = [\n [1],\n [\"x\"],\n]", `3: Wrong value for element 2 of "l": It must be a whole number, and the text is not one.`},
		{`m = { a = 1 }`, `1: Wrong value for "m": One of its values does not fit. ` + unit},
		{`old = "x"`, `1: Deprecated attribute "old": Use "s".`},
		{`one {}`, `1: Missing attribute "need": It is required here. Write: need = "…"`},
		{"one {\n neet = 1\n}", `2: Unknown attribute "neet": Did you mean "need"?`},
		{`one = {}`, `1: "one" is a block: Write it without the equals sign: one { … }`},
		{`named = {}`, `1: "named" is a block: Write it without the equals sign: named "NAME" { … }`},
		{`m {}`, `1: "m" is an attribute: Write it with an equals sign: m = { name = "30s" }`},
		{"many {\n need = null\n}", `1: Missing attribute "need": It is required here. Write: need = "…"`},
		{`one "x" {` + "\n need = \"x\"\n}", `1: Wrong number of labels for "one": A block of this name has no labels. Write: one { … }`},
		{`xyz {}`, `1: Unknown block "xyz": Known here: b, d, def, f, i, l, m, many, named, old, one, s, secret, z.`},
		{"s = 1\nb = 2\nxyz = 3", "1: Wrong value for \"s\": It must be text in quotes, not a number. Write it in double quotes.\n" +
			"2: Wrong value for \"b\": It must be true or false, not a number.\n" +
			"3: Unknown attribute \"xyz\": Known here: b, d, def, f, i, l, m, many, named, old, one, s, secret, z."},
	} {
		if _, got := decode(t, every(), c.source); got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", c.source, got, c.want)
		}
	}
}

func TestRequiredBlocks(t *testing.T) {
	block := every()
	for _, n := range block.GetBlocks() {
		n.Required = true
	}
	_, got := decode(t, block, "")
	const want = `1: Missing block "one": It is required here. Write: one { … }
1: Missing block "many": It is required here. Write: many { … }
1: Missing block "named": It is required here. Write: named "NAME" { … }`
	if got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
}
