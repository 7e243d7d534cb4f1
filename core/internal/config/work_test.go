package config

import (
	"strings"
	"testing"
)

// TestWorkIsBounded: what a small source computes without an end is refused before
// it is computed, and ordinary loops are not. Without the bound the test takes all
// memory there is, or does not end.
func TestWorkIsBounded(t *testing.T) {
	nest := func(n int, open, core, end string) string {
		return strings.Repeat(open, n) + core + strings.Repeat(end, n)
	}
	ones := "[" + strings.Repeat("1,", 3000) + "1]"
	for name, expr := range map[string]string{
		"nested loops":                  nest(3, "[for v in "+ones+" : ", "1", "]"),
		"loops in maps":                 nest(3, "{for v in "+ones+" : v => ", "1", "...}"),
		"loops in texts":                nest(3, `"%{for v in `+ones+`}${`, `1`, `}%{endfor}"`),
		"conditions":                    "[for a in " + ones + " : a if [for b in " + ones + " : [for c in " + ones + " : 1]] == 1]",
		"a text that doubles":           `[for a in ["0123456789"] : ` + nest(30, `[for a in ["${a}${a}"] : `, "a", "]") + "]",
		"a text that doubles, as [*]":   `[for a in ["0123456789"] : ` + nest(20, `[for a in ["${a}${a}"][*] : `, "a", "]") + "]",
		"what a loop made of a loop's":  "[for a in [" + ones + "] : [for x in [for y in [1] : a] : [for b in x : [for c in x : 1]]]]",
		"[*] of [*]":                    ones + "[*][" + ones + "[*][" + ones + "[*][0]]]",
		"texts in texts":                nest(40, "jsonencode(", `"\""`, ")"),
		"a long text, over and over":    "[for v in " + ones + ` : "` + strings.Repeat("x", 9000) + `${v}"]`,
		"a loop over a loop over files": `[for a in jsondecode(file("f")) : [for b in a : b]]`,
	} {
		t.Run(name, func(t *testing.T) {
			p := newParser(&Config{src: newSource(t.TempDir())})
			f, problems := parseFile("main.hcl", []byte("upstream \"acme\" \"a\" {\n  token = "+expr+"\n}\n"))
			if len(problems) > 0 {
				t.Fatal(problems)
			}
			if _, ok := p.eval(f.body.Blocks[0].Body.Attributes["token"].Expr); ok || len(p.diags) != 1 || p.diags[0].Summary != "The value takes too much to compute" {
				t.Errorf("%v, %v", ok, p.diags)
			}
		})
	}
	for _, expr := range []string{
		`[for a in ["x", "y"] : [for b in [1, 2] : "${a}${b}"]]`,
		`[for s in jsondecode("[{\"name\": \"n\"}]") : { name = s.name, url = "https://${s.name}.corp" }]`,
		`[for a in [["x"], ["y", "z"]] : [for b in a : b]]`,
		`jsonencode({ a = jsonencode(["x"]), b = jsondecode("[{\"n\": 1}]")[*].n })`,
		`[for a in jsondecode(env("WORK_LIST")) : "${a}:443" if a != "x"]`,
	} {
		t.Setenv("WORK_LIST", `["x", "y"]`)
		p := newParser(&Config{src: newSource("")})
		f, problems := parseFile("main.hcl", []byte("a = "+expr+"\n"))
		if _, ok := p.eval(f.body.Attributes["a"].Expr); !ok || len(problems) > 0 {
			t.Errorf("%s: %v, %v", expr, problems, p.diags)
		}
	}
}
