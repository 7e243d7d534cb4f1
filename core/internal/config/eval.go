package config

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
	"github.com/zclconf/go-cty/cty/function/stdlib"

	"github.com/tunneld/tunneld/core/internal/hclbody"
	"github.com/tunneld/tunneld/internal/schema"
	"github.com/tunneld/tunneld/internal/userfile"
)

// maxValueFile bounds what file reads: secrets and certificates are small.
const maxValueFile = 1 << 20

// callError is what a function of the language says. Its texts hold nothing of
// its arguments: %s in summary stands for the argument, and is filled in only
// where it is written in the source and looks like what it should be.
type callError struct {
	summary, detail string
	machine         bool // see hclbody.Problem
}

func (e *callError) Error() string { return e.summary }

// functionNames are the functions of the language.
var functionNames = []string{"env", "file", "trimspace", "base64decode", "jsondecode", "jsonencode"}

// evalContext holds the functions.
func (s *source) evalContext() *hcl.EvalContext {
	return &hcl.EvalContext{Functions: map[string]function.Function{
		"env":       textFunc(envValue),
		"file":      textFunc(s.fileValue),
		"trimspace": textFunc(func(s string) (string, *callError) { return strings.TrimSpace(s), nil }),
		"base64decode": textFunc(func(s string) (string, *callError) {
			b, err := base64.StdEncoding.DecodeString(s)
			if err != nil || !utf8.Valid(b) {
				return "", &callError{"Not base64", "base64decode needs base64 of UTF-8 text. trimspace( … ) removes white space around it.", false}
			}
			return string(b), nil
		}),
		"jsondecode": quiet(shallowJSON, "str", cty.String, "Not JSON", fmt.Sprintf("jsondecode needs a text with one JSON value, at most %d levels deep.", maxDepth)),
		"jsonencode": quiet(stdlib.JSONEncodeFunc, "val", cty.DynamicPseudoType, "Cannot be written as JSON", "jsonencode takes texts, numbers, true, false, lists and maps."),
	}}
}

func textFunc(f func(string) (string, *callError)) function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{{Name: "text", Type: cty.String}},
		Type:   function.StaticReturnType(cty.String),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			s, bad := f(args[0].AsString())
			if bad != nil {
				return cty.NilVal, bad
			}
			return cty.StringVal(s), nil
		},
	})
}

// quiet wraps a function of the library, whose errors repeat their arguments.
func quiet(f function.Function, param string, ty cty.Type, summary, detail string) function.Function {
	silence := &callError{summary: summary, detail: detail}
	return function.New(&function.Spec{
		Params: []function.Parameter{{Name: param, Type: ty, AllowNull: true, AllowDynamicType: true}},
		Type: func(args []cty.Value) (cty.Type, error) {
			t, err := f.ReturnTypeForValues(args)
			if err != nil {
				return cty.NilType, silence
			}
			return t, nil
		},
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			v, err := f.Call(args)
			if err != nil {
				return cty.NilVal, silence
			}
			return v, nil
		},
	})
}

// shallowJSON is the library's function for texts that are not too deep: it
// recurses over them.
var shallowJSON = function.New(&function.Spec{
	Params: []function.Parameter{{Name: "str", Type: cty.String}},
	Type: func(args []cty.Value) (cty.Type, error) {
		if args[0].IsKnown() && jsonDepth(args[0].AsString()) > maxDepth {
			return cty.NilType, errors.New("nested too deeply")
		}
		return stdlib.JSONDecodeFunc.ReturnTypeForValues(args)
	},
	Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) { return stdlib.JSONDecodeFunc.Call(args) },
})

// jsonDepth returns how deep the brackets of a JSON text nest.
func jsonDepth(text string) int {
	depth, deepest := 0, 0
	inText := false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case inText && c == '\\':
			i++
		case c == '"':
			inText = !inText
		case inText:
		case c == '[' || c == '{':
			depth++
			deepest = max(deepest, depth)
		case c == ']' || c == '}':
			depth--
		}
	}
	return deepest
}

func envValue(name string) (string, *callError) {
	v, ok := os.LookupEnv(name)
	switch {
	case !ok:
		return "", &callError{"The environment variable%s is not set", unsetDetail(name), false}
	case !utf8.ValidString(v):
		return "", &callError{"The environment variable%s is not UTF-8", "Only text can be used. Put it into base64 and use base64decode.", false}
	}
	return v, nil
}

// unsetDetail says what to do about a variable that is not set. Some platforms pass the
// path of a file in a variable with another name instead.
func unsetDetail(name string) string {
	for _, suffix := range []string{"_FILE_PATH", "_FILE"} {
		if _, ok := os.LookupEnv(name + suffix); ok && envNameRE.MatchString(name) {
			return fmt.Sprintf("%s is set, to the path of a file: write file(env(%q)).", name+suffix, name+suffix)
		}
	}
	if name == "VCAP_SERVICES" {
		return "Cloud Foundry gives an application this or VCAP_SERVICES_FILE_PATH, and neither is set. " +
			"Elsewhere, run tunneld emulate sapsocks and paste what it prints, or write file( … ) with a file that has the value."
	}
	return "Set it in tunneld's environment, or write the value another way."
}

func (s *source) fileValue(path string) (string, *callError) {
	hint := ""
	if !filepath.IsAbs(path) {
		path = filepath.Join(s.folder, path)
		hint = " A relative path starts from the configuration's folder."
	}
	f, err := userfile.Read(path, maxValueFile)
	if s.read == nil {
		s.read = map[string]userfile.Sum{}
	}
	s.read[path] = userfile.Sum{}
	if err == nil {
		s.read[path] = f.Sum()
	}
	switch {
	case err != nil:
		return "", &callError{"The file%s cannot be read", "The reason: " + reason(err) + "." + hint, errors.Is(err, fs.ErrNotExist)}
	case !utf8.Valid(f.Data):
		return "", &callError{"The file%s is not UTF-8", "Only text can be used. Put it into base64 and use base64decode.", false}
	}
	return string(f.Data), nil
}

// eval computes an expression, once, and reports what is wrong with it, once.
func (s *source) eval(expr hclsyntax.Expression) (evaluated, []hclbody.Problem) {
	if e, done := s.evals[expr]; done {
		return e, nil
	}
	ctx, problems, ok := s.withLocals(expr)
	if ok {
		if p := s.workProblem(expr); p != nil {
			problems, ok = []hclbody.Problem{*p}, false
		}
	}
	if !ok {
		s.evals[expr] = evaluated{read: s.localsRead(expr)}
		return evaluated{}, problems
	}
	s.read = s.localsRead(expr)
	value, diags := expr.Value(ctx)
	e := evaluated{value: value, ok: !diags.HasErrors(), read: s.read}
	s.evals[expr] = e
	if e.ok {
		return e, nil
	}
	for _, d := range diags {
		if d.Severity == hcl.DiagError {
			problems = append(problems, evalProblem(expr, d))
		}
	}
	return e, problems
}

// evalProblem translates what hcl says about an expression. Its own words are
// not used: they repeat names, keys and values.
func evalProblem(expr hclsyntax.Expression, d *hcl.Diagnostic) hclbody.Problem {
	p := hclbody.Problem{Range: expr.StartRange()}
	if d.Subject != nil {
		p.Range = *d.Subject
	}
	if extra, ok := hcl.DiagnosticExtra[hclsyntax.FunctionCallDiagExtra](d); ok {
		var call *callError
		if errors.As(extra.FunctionCallError(), &call) {
			p.Summary, p.Detail, p.Machine = call.summary, call.detail, call.machine
			if strings.Contains(p.Summary, "%s") {
				p.Summary = fmt.Sprintf(p.Summary, writtenArgument(d.Expression))
			}
			return p
		}
	}
	p.Summary, p.Detail = evalText(d)
	return p
}

var (
	envNameRE  = regexp.MustCompile(`^[A-Z_][A-Z0-9_]{0,127}$`)
	filePathRE = regexp.MustCompile(`^\.{0,2}/[\w./@%+-]{0,255}$`)
)

// writtenArgument returns ` "NAME"` where the call's argument is written out
// and can be nothing but the name of a variable or a path; else "".
func writtenArgument(expr hcl.Expression) string {
	call, ok := expr.(*hclsyntax.FunctionCallExpr)
	if !ok || len(call.Args) != 1 {
		return ""
	}
	if t, ok := call.Args[0].(*hclsyntax.TemplateExpr); !ok || !t.IsStringLiteral() {
		return ""
	}
	v, diags := call.Args[0].Value(nil)
	if diags.HasErrors() || v.Type() != cty.String {
		return ""
	}
	arg := v.AsString()
	if call.Name == "env" && envNameRE.MatchString(arg) || call.Name == "file" && filePathRE.MatchString(arg) {
		return fmt.Sprintf(" %q", arg)
	}
	return ""
}

// evalTexts are hcl's complaints about an expression by their summaries, with what the
// user is told. A test pins the summaries to the version of hcl that is used.
var evalTexts = []struct {
	summaries       []string
	summary, detail string
}{
	{[]string{"Unknown variable", "Variables not allowed"}, "Text without quotes", `Write a text in double quotes: "text". The only names without quotes are local.NAME, and references to blocks in upstreams and listeners of a route.`},
	{[]string{unknownFunction}, "Unknown function", "The functions are " + strings.Join(functionNames, ", ") + "."},
	{[]string{"Not enough function arguments", "Too many function arguments"}, "Wrong number of arguments for a function", `Each function takes one, such as env("NAME") or trimspace(file("token")).`},
	{[]string{wrongArgument}, "Wrong argument for a function", "Its type does not fit the function, or it is null. "},
	{[]string{"Invalid template interpolation value"}, "Wrong value in a text", "Only texts, numbers, true and false can stand in ${ … }. jsonencode( … ) makes a text of a list or map."},
	{[]string{"Unsupported attribute", "Invalid index", "Missing map element", "Attempt to get attribute from null value", "Attempt to index null value"}, "No such element", "The value has no such part ( . or [ ] ). Check its structure."},
	{[]string{"Duplicate object key", "Ambiguous attribute key", "Invalid object key", "Null value as key"}, "Wrong key in a map", "Each key must be a text of its own: { name = value }."},
	{[]string{"Invalid operand", "Operation failed"}, "The value cannot be computed", "An operator does not fit its operands. A text with such a sign needs quotes."},
}

const (
	unknownFunction = "Call to unknown function"
	wrongArgument   = "Invalid function argument"
)

func evalText(d *hcl.Diagnostic) (summary, detail string) {
	for _, t := range evalTexts {
		if !slices.Contains(t.summaries, d.Summary) {
			continue
		}
		switch d.Summary {
		case unknownFunction:
			if similar := schema.Suggest(calledName(d.Expression), functionNames); similar != "" {
				return t.summary, fmt.Sprintf("Did you mean %q? %s", similar, t.detail)
			}
		case wrongArgument:
			return t.summary, t.detail + argumentHint(d.Expression)
		}
		return t.summary, t.detail
	}
	return "The value cannot be computed", "Write a simpler value."
}

func argumentHint(expr hcl.Expression) string {
	if _, isCall := expr.(*hclsyntax.FunctionCallExpr); isCall {
		return "Check what the inner function returns."
	}
	return `Most functions take a text: env("NAME").`
}

func calledName(expr hcl.Expression) string {
	if call, ok := expr.(*hclsyntax.FunctionCallExpr); ok {
		return call.Name
	}
	return ""
}
