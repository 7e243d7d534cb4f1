package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/tunneld/tunneld/core/internal/hclbody"
)

// parseFile parses one file and returns its syntax errors.
func parseFile(name string, src []byte) (*file, []hclbody.Problem) {
	f := &file{name: name, src: src, body: &hclsyntax.Body{}}
	if p := encodingProblem(src, name); p != nil {
		f.broken = 1
		return f, []hclbody.Problem{*p}
	}
	if tooManyTokens(src, name) {
		f.broken = 1
		return f, []hclbody.Problem{{
			Summary: "Too much in one file",
			Detail:  fmt.Sprintf("It has more than %d million words, signs and lines. Check that it is a configuration, or shorten it.", maxTokens>>20),
			Range:   hcl.Range{Filename: name, Start: hcl.InitialPos},
		}}
	}
	lex := func() hclsyntax.Tokens {
		tokens, _ := hclsyntax.LexConfig(src, name, hcl.InitialPos)
		return tokens
	}
	// Tokens are a hundred times as large as what they are of: the parser makes its
	// own, and these are not kept meanwhile.
	if p := depthProblem(lex()); p != nil {
		f.broken, f.tokens = p.Range.Start.Line, lex()
		return f, []hclbody.Problem{*p}
	}
	parsed, diags := hclsyntax.ParseConfig(src, name, hcl.InitialPos)
	f.body = parsed.Body.(*hclsyntax.Body)
	if !diags.HasErrors() {
		return f, nil
	}
	tokens := lex()
	problems := syntaxProblems(f, tokens, diags)
	for _, p := range problems {
		if p.Summary != summaryTwice && (f.broken == 0 || p.Range.Start.Line < f.broken) {
			f.broken = max(p.Range.Start.Line, 1)
			f.tokens = tokens
		}
	}
	return f, problems
}

// maxTokens bounds the tokens of a file, of which the parser holds all at once, a
// hundred bytes and more for each. What a person writes has fewer in MaxSize.
const maxTokens = 2 << 20

// tooManyTokens counts the tokens of a large file in pieces, so that they are not held
// at once: at most a few for each piece are others than in the whole.
func tooManyTokens(src []byte, name string) bool {
	count := 0
	if len(src) <= maxTokens { // each is a byte at least
		return false
	}
	for piece := range slices.Chunk(src, 64<<10) {
		tokens, _ := hclsyntax.LexConfig(piece, name, hcl.InitialPos)
		count += len(tokens)
	}
	return count > maxTokens
}

const (
	summaryTwice    = "Attribute set twice"
	summaryNewline  = "Text without its closing quote"
	summaryTemplate = "Text or template without its end"
	summaryBytes    = "Not UTF-8"
)

// syntaxProblems translates what the parser says. Its own words are not used:
// they repeat pieces of the source. Of one line only one complaint is kept, and
// none after a text without its end, since from there on text and code have changed
// places.
func syntaxProblems(f *file, tokens hclsyntax.Tokens, diags hcl.Diagnostics) []hclbody.Problem {
	var problems []hclbody.Problem
	for _, d := range diags {
		p := hclbody.Problem{Range: hcl.Range{Filename: f.name, Start: hcl.InitialPos}}
		if d.Subject != nil {
			p.Range = *d.Subject
		}
		switch d.Summary {
		case "Attribute redefined":
			p.Summary, p.Detail = summaryTwice, twiceDetail(f, p.Range)
		case "Unterminated template string":
			p.Range = lastOpen(tokens, p.Range)
			fallthrough
		default:
			p.Summary, p.Detail = syntaxText(d.Summary)
			if r, ok := characterAt(f.src, p.Range); ok && p.Summary == summaryCharacter {
				p.Detail = characterDetail(r)
			}
		}
		problems = append(problems, p)
	}
	slices.SortStableFunc(problems, func(a, b hclbody.Problem) int {
		return cmp.Or(a.Range.Start.Line-b.Range.Start.Line, cause(a)-cause(b), a.Range.Start.Byte-b.Range.Start.Byte)
	})
	var kept []hclbody.Problem
	for _, p := range problems {
		if n := len(kept); n > 0 && (kept[n-1].Range.Start.Line == p.Range.Start.Line || kept[n-1].Summary == summaryNewline || kept[n-1].Summary == summaryTemplate) {
			continue
		}
		kept = append(kept, p)
	}
	return tellOnce(kept)
}

// cause is less for what makes the parser complain of the rest of a line as well.
func cause(p hclbody.Problem) int {
	if p.Summary == summaryCharacter || p.Summary == summaryBytes {
		return 0
	}
	return 1
}

// lastOpen returns the place where the last <<EOT text began that has no end,
// which helps more than the end of the file.
func lastOpen(tokens hclsyntax.Tokens, end hcl.Range) hcl.Range {
	var open []hcl.Range
	for _, t := range tokens {
		switch t.Type {
		case hclsyntax.TokenOHeredoc:
			open = append(open, t.Range)
		case hclsyntax.TokenCHeredoc:
			open = open[:max(len(open)-1, 0)]
		}
	}
	if len(open) == 0 {
		return end
	}
	return open[len(open)-1]
}

// twiceDetail says where an attribute was set first.
func twiceDetail(f *file, second hcl.Range) string {
	const next = "Each is set once: remove one of the two."
	body := f.body
	for {
		b := nestedAt(body, second.Start)
		if b == nil {
			break
		}
		body = b.Body
	}
	if first := body.Attributes[string(second.SliceBytes(f.src))]; first != nil {
		return fmt.Sprintf("The first is on line %d. %s", first.NameRange.Start.Line, next)
	}
	return next
}

// syntaxTexts are the parser's complaints by a piece of their summaries, with
// what the user is told.
var syntaxTexts = []struct{ piece, summary, detail string }{
	{"Invalid multi-line string", summaryNewline, `The text in quotes does not end on its line. Close it with ", or write a text of several lines as <<EOT … EOT. What comes after it in this file has not been checked.`},
	{"Unterminated template string", summaryTemplate, `The text does not end before the end of the file. Close it with ", or end a <<EOT text with EOT on a line of its own.`},
	{"Unterminated string literal", summaryTemplate, `The text does not end before the end of the file. Close it with ".`},
	{"Unclosed template interpolation", summaryTemplate, `A ${ or %{ in the text has no }. Close it, or write $${ or %%{ for the plain signs.`},
	{"Extra characters after interpolation", "Text and code are mixed up", `A ${ … } in the text contains more than one expression. For the plain signs, write $${.`},
	{"template", "Wrong template in a text", `A ${ or %{ in the text begins a template. For the plain signs, write $${ or %%{.`},
	{"directive", "Wrong template in a text", `A %{ in the text begins a template. For the plain signs, write %%{.`},
	{"Invalid escape sequence", "Unknown escape in a text", `A backslash in quotes begins one of \n, \r, \t, \", \\, \uNNNN. For a backslash, write \\.`},
	{"Unclosed configuration", "Block without its closing brace", `This block has no } before the end of the file. A brace is missing here or in a block after it.`},
	{"Missing newline after argument", "More on the line than one attribute", `Each attribute stands on a line of its own. A text with spaces needs quotes.`},
	{"Unexpected comma after argument", "Comma after an attribute", `Attributes of a block are separated by new lines. Remove the comma.`},
	{"Missing newline after block", "More on the line than one block", `Start a new line after the closing brace.`},
	{"Invalid single-argument block", "Block on one line with more than one attribute", `A block on one line can hold only one attribute. Write each attribute, and the closing brace, on its own line.`},
	{"Argument definition required", "Block within a block on one line", `A block on one line can hold only one attribute. Write the inner block on its own lines.`},
	{"Invalid block definition", "Neither an attribute nor a block", `An attribute is written as: name = value. A block is written as: name "LABEL" { … }, with the brace on the same line.`},
	{"Argument or block definition required", "Neither an attribute nor a block", `An attribute is written as: name = value. A block is written as: name "LABEL" { … }.`},
	{"Invalid argument name", "Attribute name in quotes", `Names of attributes are written without quotes: name = value.`},
	{"Invalid expression", "Value expected", `After the equals sign or in the list comes a value: "text", a number, true, false, [ … ], { … } or a function such as env("NAME").`},
	{"Missing item separator", "Elements without a comma", `Elements of a list are separated by commas: ["a", "b"].`},
	{"Unterminated tuple", "List without its closing bracket", `The list has no matching ]. Close it.`},
	{"Unterminated object", "Map without its closing brace", `The map has no matching }. Close it.`},
	{"Missing attribute value", "Map with a name and no value", `Write: { name = value }.`},
	{"Missing key/value separator", "Map with a name and no value", `Write: { name = value }.`},
	{"Missing attribute separator", "Map entries without a comma", `Entries of a map on one line are separated by commas: { a = "1", b = "2" }.`},
	{"Unterminated function call", "Function call without its closing parenthesis", `Write: env("NAME").`},
	{"Missing argument separator", "Function arguments without a comma", `Arguments of a function are separated by commas.`},
	{"parenthes", "Parentheses that do not match", `Each ( needs its ).`},
	{"Invalid character encoding", summaryBytes, `The file contains bytes that are not UTF-8. Save it as UTF-8.`},
	{"Invalid character", summaryCharacter, `Texts are written in straight double quotes: "text".`},
	{"Unsupported operator", "Operator that does not exist", `A text that holds such a sign needs quotes.`},
	{"Invalid number literal", "Not a number", `A text that begins with a digit needs quotes.`},
}

func syntaxText(summary string) (string, string) {
	for _, t := range syntaxTexts {
		if strings.Contains(summary, t.piece) {
			return t.summary, t.detail
		}
	}
	return "Syntax error", "The parser cannot make sense of this. Look for a missing quote, bracket or comma."
}
