package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/tunneld/tunneld/core/internal/hclbody"
	"github.com/tunneld/tunneld/internal/schema"
	"github.com/tunneld/tunneld/internal/userfile"
)

// localRoot is the name that locals are referred to by: local.NAME.
const localRoot = "local"

// local is an attribute of a locals block.
type local struct {
	expr hclsyntax.Expression
	at   hcl.Range
	size float64 // of its value, in nodes and characters
	bad  bool    // it has no value, which was told
}

// locals takes up the locals blocks of all files, in any order, and computes what they
// say. whole says that no file is broken: else what is not there may only be unread.
func (p *parser) locals(files []*file, whole bool) {
	p.src.missing = whole
	var names []string
	for _, f := range files {
		for _, b := range f.body.Blocks {
			if b.Type == "locals" && len(b.Labels) == 0 && (f.broken == 0 || b.CloseBraceRange.End.Line < f.broken) {
				names = append(names, p.localsBlock(b)...)
			}
		}
	}
	for _, name := range names {
		p.report(p.src.local(name, nil)...)
	}
}

func (p *parser) localsBlock(b *hclsyntax.Block) (names []string) {
	for _, inner := range b.Body.Blocks {
		p.errorAt(inner.TypeRange, fmt.Sprintf("Unknown block %q", inner.Type), "A locals block contains only values. Write: name = value")
	}
	inOrder := slices.SortedFunc(maps.Values(b.Body.Attributes), func(a, b *hclsyntax.Attribute) int {
		return a.SrcRange.Start.Byte - b.SrcRange.Start.Byte
	})
	for _, a := range inOrder {
		if first := p.src.locals[a.Name]; first != nil {
			p.errorAt(a.NameRange, fmt.Sprintf("local.%s is defined twice", a.Name),
				fmt.Sprintf("The first is in %s on line %d. Give one of the two another name.", first.at.Filename, first.at.Start.Line))
			continue
		}
		p.src.locals[a.Name] = &local{expr: a.Expr, at: a.NameRange}
		names = append(names, a.Name)
	}
	return names
}

// local computes a local, and before it those that it refers to; chain are those that
// wait for it. It returns what is wrong, once.
func (s *source) local(name string, chain []string) []hclbody.Problem {
	l := s.locals[name]
	if _, done := s.evals[l.expr]; done || l.bad {
		return nil
	}
	if i := slices.Index(chain, name); i >= 0 {
		for _, n := range chain[i:] {
			s.locals[n].bad = true
		}
		circle := localRoot + "." + strings.Join(append(slices.Clone(chain[i:]), name), " → "+localRoot+".")
		return []hclbody.Problem{{Summary: "Locals that refer to each other", Detail: circle + ". Write one of them without the others.", Range: l.at}}
	}
	if len(chain) >= maxDepth {
		l.bad = true
		return []hclbody.Problem{tooDeepLocal(l.at)}
	}
	var problems []hclbody.Problem
	for _, other := range localNames(l.expr) {
		if s.locals[other] != nil {
			problems = append(problems, s.local(other, append(slices.Clone(chain), name))...)
		}
	}
	if l.bad { // in a circle
		return problems
	}
	e, more := s.eval(l.expr)
	problems = append(problems, more...)
	if l.bad = !e.ok; l.bad {
		return problems
	}
	var depth int
	if l.size, depth = measure(e.value, 0); l.size > maxWork || depth > maxDepth {
		l.bad = true
		p := tooDeepLocal(l.at)
		if depth <= maxDepth {
			p = tooMuchWork(l.at)
		}
		problems = append(problems, p)
	}
	return problems
}

func tooDeepLocal(at hcl.Range) hclbody.Problem {
	return hclbody.Problem{
		Summary: "Nested too deeply",
		Detail:  fmt.Sprintf("With the locals that it refers to, this value has more than %d levels. Simplify it.", maxDepth),
		Range:   at,
	}
}

// measure returns the size of a value in nodes and characters, and its depth. It stops
// beyond what is allowed, since a value can hold another many times.
func measure(v cty.Value, depth int) (size float64, deepest int) {
	size, deepest = 1, depth
	switch ty := v.Type(); {
	case v.IsNull() || !v.IsKnown() || depth > maxDepth:
	case ty == cty.String:
		size += float64(len(v.AsString()))
	case v.CanIterateElements():
		for it := v.ElementIterator(); it.Next() && size <= maxWork; {
			k, e := it.Element()
			if k.Type() == cty.String {
				size += float64(len(k.AsString()))
			}
			s, d := measure(e, depth+1)
			size, deepest = size+s, max(deepest, d)
		}
	}
	return size, deepest
}

// localTraversals are the references of an expression to locals.
func localTraversals(expr hclsyntax.Expression) (found []hcl.Traversal) {
	for _, t := range expr.Variables() {
		if t.RootName() == localRoot {
			found = append(found, t)
		}
	}
	return found
}

// localName is the name that a reference to a local begins with; empty: none. What is
// no name may be anything, and is not shown.
func localName(t hcl.Traversal) (name string) {
	if len(t) < 2 {
		return ""
	}
	switch step := t[1].(type) {
	case hcl.TraverseAttr:
		name = step.Name
	case hcl.TraverseIndex:
		if step.Key.Type() == cty.String && step.Key.IsKnown() && !step.Key.IsNull() {
			name = step.Key.AsString()
		}
	}
	if !hclsyntax.ValidIdentifier(name) {
		return ""
	}
	return name
}

func localNames(expr hclsyntax.Expression) (names []string) {
	for _, t := range localTraversals(expr) {
		names = append(names, localName(t))
	}
	return names
}

// withLocals returns the context of an expression: the functions, and the locals that
// it refers to. ok is false where one of them has no value.
func (s *source) withLocals(expr hclsyntax.Expression) (ctx *hcl.EvalContext, problems []hclbody.Problem, ok bool) {
	refs := localTraversals(expr)
	if len(refs) == 0 {
		return s.funcs, nil, true
	}
	ok = true
	values := map[string]cty.Value{}
	for _, t := range refs {
		name := localName(t)
		l := s.locals[name]
		switch {
		case name == "":
			ok = false
			problems = append(problems, hclbody.Problem{Summary: "Locals are referred to by name", Detail: "Write: local.NAME", Range: t.SourceRange()})
		case l == nil:
			ok = false
			if s.missing {
				problems = append(problems, s.noLocal(name, t.SourceRange()))
			}
		case l.bad || !s.evals[l.expr].ok:
			ok = false
		default:
			values[name] = s.evals[l.expr].value
		}
	}
	ctx = s.funcs.NewChild()
	ctx.Variables = map[string]cty.Value{localRoot: cty.ObjectVal(values)}
	return ctx, problems, ok
}

func (s *source) noLocal(name string, at hcl.Range) hclbody.Problem {
	known := slices.Sorted(maps.Keys(s.locals))
	detail := "Add it to a locals block, or refer to an existing one."
	if similar := schema.Suggest(name, known); similar != "" {
		detail = fmt.Sprintf("Did you mean local.%s?", similar)
	} else if len(known) == 0 {
		detail = fmt.Sprintf("There are no locals at all. Write: locals { %s = value }", name)
	}
	return hclbody.Problem{Summary: fmt.Sprintf("There is no local.%s", name), Detail: detail, Range: at}
}

// localsRead is what the locals that an expression refers to have read; nil: nothing.
func (s *source) localsRead(expr hclsyntax.Expression) (read map[string]userfile.Sum) {
	for _, name := range localNames(expr) {
		l := s.locals[name]
		if l == nil || len(s.evals[l.expr].read) == 0 {
			continue
		}
		if read == nil {
			read = map[string]userfile.Sum{}
		}
		maps.Copy(read, s.evals[l.expr].read)
	}
	return read
}

// rereadLocals computes the locals again that these bodies need and that read files.
func (p *parser) rereadLocals(bodies []*hclsyntax.Body) {
	p.src.locals = maps.Clone(p.src.locals)
	var again []string
	var visit func(hclsyntax.Expression)
	visit = func(expr hclsyntax.Expression) {
		for _, name := range localNames(expr) {
			l := p.src.locals[name]
			if l != nil && !slices.Contains(again, name) && len(p.src.evals[l.expr].read) > 0 {
				again = append(again, name)
				visit(l.expr)
			}
		}
	}
	for _, body := range bodies {
		eachExpression(body, visit)
	}
	for _, name := range again {
		fresh := *p.src.locals[name]
		fresh.bad = false
		p.src.locals[name] = &fresh
		delete(p.src.evals, fresh.expr)
	}
	for _, name := range again {
		p.report(p.src.local(name, nil)...)
	}
}
