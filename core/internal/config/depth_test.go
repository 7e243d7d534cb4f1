package config

import (
	"bytes"
	"math/rand/v2"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// little is the stack that the tests of this file allow, a sixtieth of what the
// runtime does: needing more ends the test's process.
func little(t testing.TB) {
	before := debug.SetMaxStack(16 << 20)
	t.Cleanup(func() { debug.SetMaxStack(before) })
}

// endless are the constructs that nest or chain without an end: before, n times
// piece, middle, n times after.
var endless = map[string]construct{
	"blocks":                 {"", "x {\n", "", "}\n"},
	"lists":                  {"token = ", "[", "1", "]"},
	"open lists":             {"token = ", "[", "", ""},
	"parentheses":            {"token = ", "(", "1", ")"},
	"maps":                   {"token = ", "{ k = ", "1", "}"},
	"maps on lines":          {"token = ", "{\nk = ", "1", "\n}"},
	"map keys":               {"token = ", "{ (", "1", ") = 1 }"},
	"lists of loops":         {"token = ", "[for v in [1] : ", "v", "]"},
	"maps of loops":          {"token = ", "{for v in [1] : v => ", "v", "}"},
	"loops' sources":         {"token = ", "[for v in ", "[1]", ": v]"},
	"loops' conditions":      {"token = ", "[for v in [1] : v if ", "true", "]"},
	"calls":                  {"token = ", "trimspace(", `"x"`, ")"},
	"texts":                  {"token = ", `"${`, "1", `}"`},
	"texts with more":        {"token = ", `"x${`, "1", `}x"`},
	"texts of lines":         {"token = ", "<<A\n${", "1", "}\nA\n"},
	"conditions":             {`token = "`, "%{if true}", "", `%{endif}"`},
	"else":                   {`token = "`, "%{if true}%{else}", "", `%{endif}"`},
	"open conditions":        {`token = "`, "%{ if true }x", `"`, ""},
	"trimmed conditions":     {`token = "`, "%{~ if true ~}", "", `%{~ endif ~}"`},
	"commented conditions":   {`token = "`, "%{ /* endif */ if true }", "", `%{ endif }"`},
	"loops in texts":         {`token = "`, "%{for v in [1]}", "", `%{endfor}"`},
	"conditions within":      {`token = `, `"%{if `, "true", `}%{endif}"`},
	"conditions of lines":    {"token = <<A\n", "%{if true}\n", "", "%{endif}\nA\n"},
	"not":                    {"token = ", "!", "true", ""},
	"minus":                  {"token = ", "-", "1", ""},
	"not and minus":          {"token = ", "!-", "1", ""},
	"plus":                   {"token = 1", "+1", "", ""},
	"times and plus":         {"token = 1", "+1*1", "", ""},
	"less":                   {"token = 1", "<1", "", ""},
	"equal":                  {"token = 1", "==1", "", ""},
	"and":                    {"token = true", "&&true", "", ""},
	"or":                     {"token = true", "||true", "", ""},
	"plus on lines":          {"token = (1", "+\n1", ")", ""},
	"plus and comments":      {"token = (1", "+ # comment\n1", ")", ""},
	"plus in a loop's map":   {"token = { for v in [1] : v => 1", "+\n1", "}", ""},
	"plus behind a comment":  {"token = { # comment\n for v in [1] : v => 1", "+\n1", "}", ""},
	"plus in a text":         {`token = "${1`, "+\n1", `}"`, ""},
	"choices":                {"token = ", "true ? 1 : ", "1", ""},
	"choices within":         {"token = ", "true ? ", "1", ": 1"},
	"splats":                 {`token = ["a"]`, "[*]", "", ""},
	"old splats":             {`token = ["a"]`, ".*", "", ""},
	"splats of names":        {`token = ["a"]`, "[*].a", "", ""},
	"old splats of names":    {`token = ["a"]`, ".*.a", "", ""},
	"indexes":                {`token = ["a"]`, "[0+0]", "", ""},
	"literal indexes":        {`token = ["a"]`, "[0]", "", ""},
	"indexes within":         {`token = `, `["a"][`, "0", "]"},
	"names":                  {"token = b", ".b", "", ""},
	"wrong closing brackets": {"token = ", "(]", "", ""},
}

type construct struct{ before, piece, middle, after string }

// times is the source with n pieces, in an upstream's body.
func (c construct) times(n int) string {
	return "upstream \"acme\" \"a\" {\n" + c.before + strings.Repeat(c.piece, n) + c.middle + strings.Repeat(c.after, n) + "\n}\n"
}

// TestDepthIsBounded: whatever makes blocks or expressions deep is refused before
// hcl recurses into it, which would take more than the little stack; and what is
// just not refused is parsed and evaluated with that.
func TestDepthIsBounded(t *testing.T) {
	withoutRace(t)
	little(t)
	const much = 128 << 10
	schemas := map[string]PluginSchema{"acme": {Block: acme}}
	for name, c := range endless {
		t.Run(name, func(t *testing.T) {
			most := much / len(c.piece+c.after)
			cfg, diags := ParseFrom(strings.NewReader(c.times(most)), "main.hcl")
			cfg.DecodeUpstreams(schemas)
			if len(diags) == 0 || diags[0].Summary != "Nested too deeply" || diags[0].Line == 0 {
				t.Errorf("%d times: %v", most, diags)
			}
			allowed := maxDepth
			for depth(c.times(allowed)) > maxDepth {
				allowed--
			}
			if allowed < maxDepth/4 {
				t.Errorf("only %d times are allowed", allowed)
			}
			cfg, diags = ParseFrom(strings.NewReader(c.times(allowed)), "main.hcl")
			diags = append(diags, cfg.DecodeUpstreams(schemas)...)
			if strings.Contains(printed(t, diags), "Nested too deeply") {
				t.Errorf("%d times: %v", allowed, diags)
			}
		})
	}
}

// depth is what the meter says of a source.
func depth(src string) int {
	tokens, _ := hclsyntax.LexConfig([]byte(src), "main.hcl", hcl.InitialPos)
	m := newDepthMeter()
	deepest := 0
	for i, t := range tokens {
		m.next(t, tokens[i+1:])
		deepest = max(deepest, m.depth)
	}
	return deepest
}

// TestJSONDepthIsBounded: a text may be deep as well, and what is made of it.
func TestJSONDepthIsBounded(t *testing.T) {
	little(t)
	t.Chdir(t.TempDir())
	const much = 128 << 10
	nested := func(open, inner, end string, n int) string {
		return strings.Repeat(open, n) + inner + strings.Repeat(end, n)
	}
	for name, tc := range map[string]struct {
		text string
		good bool
	}{
		"open lists":       {strings.Repeat("[", 4*much), false},
		"lists":            {nested("[", "", "]", much), false},
		"objects":          {nested(`{"":`, "1", "}", much/5), false},
		"too deep":         {nested("[", "1", "]", maxDepth+1), false},
		"deep":             {nested("[", "1", "]", maxDepth), true},
		"brackets in text": {`["` + strings.Repeat(`[\"`, much/4) + `"]`, true},
		"side by side":     {"[" + strings.Repeat("[],", much/4) + "[]]", true},
	} {
		t.Run(name, func(t *testing.T) {
			writeFiles(t, map[string]string{
				"main.hcl": "upstream \"acme\" \"a\" {\n  token = jsonencode(jsondecode(file(\"./text\")))\n}\n",
				"text":     tc.text,
			})
			cfg, diags := Parse("main.hcl")
			diags = append(diags, cfg.DecodeUpstreams(map[string]PluginSchema{"acme": {Block: acme}})...)
			if bad := strings.Contains(printed(t, diags), "Not JSON"); bad == tc.good {
				t.Errorf("%v", diags)
			}
		})
	}
}

// TestWidthIsNoDepth: what is only long may be as long as a configuration.
func TestWidthIsNoDepth(t *testing.T) {
	for name, c := range map[string]construct{
		"elements":        {"token = [", "a.b[0] + 1,", "", "]"},
		"lines of a list": {"token = [\n", "[\"a.b\"], # c\n", "", "]"},
		"entries":         {"token = {", "k = a.b[0],", "", "}"},
		"lines":           {"token = {\n", "k = a.b[0] # c\n", "", "}"},
		"attributes":      {"", "a = b.c[0] # c\n", "", ""},
		"blocks":          {"", "a \"b\" { c = [0][*] } // c\n", "", ""},
		"texts":           {`token = "`, "x${a.b}", `"`, ""},
		"conditions":      {`token = "`, "%{if true}x${a.b}%{else}y%{endif}", `"`, ""},
		"loops":           {"token = <<A\n", "%{for a in b}x%{endfor}\n", "A\n", ""},
		"arguments":       {"token = f(", "a.b, ", "1)", ""},
		"wrong ends":      {`token = "`, "%{if true}%{endfor}", `"`, ""},
		"numbers":         {"token = b", ".0", "", ""},
		"dots":            {`token = "`, ".....", `"`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			c.after, c.middle = "", c.middle+c.after
			if got := depth(c.times(1000)); got > 8 {
				t.Errorf("a depth of %d", got)
			}
		})
	}
}

// TestDepthOfMixtures: constructs within each other, at random.
func TestDepthOfMixtures(t *testing.T) {
	around := [][2]string{
		{"[", "]"}, {"(", ")"}, {"{ k = ", " }"}, {"{\n(", ") = 1\n}"}, {"f(1, ", ")"},
		{"[for v in ", " : v]"}, {"[for v in w : v if ", "]"}, {"{ for v in w :\nv\n=>\n", "\n}"},
		{"", "[*]"}, {"", "[*].b"}, {"", ".*"}, {"", "[0 + 0]"}, {"a[", "]"}, {"", ".b"},
		{"!", ""}, {"-", ""}, {"", " + 1"}, {"1 * ", ""}, {"(", "\n&&\nb)"}, {"a ? ", " : b"}, {"a ? b : ", ""},
		{`"${`, `}"`}, {`"x${`, `}x"`}, {`"%{if a}${`, `}%{endif}"`}, {`"%{if `, `}x%{endif}"`}, {`"%{for a in b}x${`, `}%{endfor}"`},
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		expr := "[1]"
		for range rnd.IntN(60) {
			a := around[rnd.IntN(len(around))]
			expr = a[0] + expr + a[1]
		}
		checkDepth(t, []byte("a = "+expr+"\n"))
	}
}

func checkDepth(t *testing.T, src []byte) {
	t.Helper()
	counted := depth(string(src))
	parsed, _ := hclsyntax.ParseConfig(src, "main.hcl", hcl.InitialPos)
	w := &walker{}
	hclsyntax.Walk(parsed.Body.(*hclsyntax.Body), w)
	// A body has some levels of its own, also one of a block whose brace is missing.
	if w.deepest > 4*counted+8 {
		t.Errorf("the tree is %d deep, the meter says %d:\n%s", w.deepest, counted, src)
	}
}

// FuzzDepth: the meter is never lower than what the parser makes, but for a factor:
// some kinds of nodes come in pairs and more for one bracket.
func FuzzDepth(f *testing.F) {
	for _, c := range endless {
		f.Add([]byte(c.times(30)))
	}
	little(f)
	f.Fuzz(func(t *testing.T, src []byte) { checkDepth(t, src) })
}

// walker counts how deep a tree is.
type walker struct{ depth, deepest int }

func (w *walker) Enter(hclsyntax.Node) hcl.Diagnostics {
	w.depth++
	w.deepest = max(w.deepest, w.depth)
	return nil
}

func (w *walker) Exit(hclsyntax.Node) hcl.Diagnostics {
	w.depth--
	return nil
}

// TestTokensAreBounded: a file of signs alone is refused before the parser makes a
// gigabyte of it, and one of many short lines is not.
func TestTokensAreBounded(t *testing.T) {
	withoutRace(t)
	for _, sign := range []string{"\n", "\x00", "@", "1,", "a{}\n"} {
		f, problems := parseFile("main.hcl", bytes.Repeat([]byte(sign), MaxSize/len(sign)))
		if len(problems) != 1 || problems[0].Summary != "Too much in one file" || f.broken != 1 {
			t.Errorf("%q: %v", sign, problems)
		}
		p := newParser(&Config{src: newSource("")})
		p.src.files["main.hcl"] = f
		if p.report(problems...); len(p.diags) != 1 || p.diags[0].File != "main.hcl" {
			t.Errorf("%q: %v", sign, p.diags)
		}
	}
	line := "ports = [5432]\n"
	if tooManyTokens(bytes.Repeat([]byte(line), MaxSize/len(line)), "main.hcl") {
		t.Error("short lines are refused")
	}
}
