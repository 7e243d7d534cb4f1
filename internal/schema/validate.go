package schema

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// Wrong stands in Values for a value that is given but wrong, which has been
// reported.
type Wrong struct{}

// Validate checks values of the right types against what the schema, which Check has
// found sane, asks besides: limits of values, and what excludes or needs each other.
func Validate(block *pluginv1.Block, values Values) []Problem {
	var c validator
	c.body(block, values, place{})
	return c.problems
}

type validator struct {
	problems []Problem
	read     map[*pluginv1.Type]*limits
}

func (c *validator) limits(t *pluginv1.Type) *limits {
	l := c.read[t]
	if l == nil {
		if c.read == nil {
			c.read = map[*pluginv1.Type]*limits{}
		}
		l = newLimits(t)
		c.read[t] = l
	}
	return l
}

func (c *validator) body(b *pluginv1.Block, v Values, at place) {
	for _, a := range b.GetAttributes() {
		if value, given := v[a.GetName()]; given {
			c.value(a.GetType(), value, at.step(a.GetName()), a.GetSensitive())
		}
		c.together(a.GetName(), a, v, at)
	}
	for _, n := range b.GetBlocks() {
		here := at.step(n.GetName())
		switch inner := v[n.GetName()].(type) {
		case Values:
			c.body(n.GetBody(), inner, here)
		case []any:
			for i, e := range inner {
				if e, ok := e.(Values); ok {
					c.body(n.GetBody(), e, here.element(i))
				}
			}
		case map[string]any:
			for _, label := range slices.Sorted(maps.Keys(inner)) {
				c.control(label, here)
				if e, ok := inner[label].(Values); ok {
					c.body(n.GetBody(), e, here.key(label))
				}
			}
		}
		c.together(n.GetName(), n, v, at)
	}
}

func (c *validator) value(t *pluginv1.Type, v any, at place, secret bool) {
	if summary, detail := c.limits(t).exceeded(v, secret); detail != "" {
		p := at.wrong(detail)
		if summary != "" {
			p.Summary = at.what + " is " + summary
		}
		c.problems = append(c.problems, p)
	}
	switch v := v.(type) {
	case string:
		c.oneLine(t, v, at)
	case []any:
		for i, e := range v {
			c.value(t.GetElement(), e, at.element(i), secret)
		}
	case map[string]any:
		for _, k := range slices.Sorted(maps.Keys(v)) {
			c.oneLine(t.GetElement(), k, at)
			c.value(t.GetElement(), v[k], at.key(k), secret)
		}
	}
}

func (c *validator) oneLine(t *pluginv1.Type, text string, at place) {
	if t.GetOneLine() {
		c.control(text, at)
	}
}

func (c *validator) control(text string, at place) {
	if summary, detail := ControlProblem(text); summary != "" {
		c.problems = append(c.problems, Problem{Path: at.path, Summary: strings.Join(at.path, ".") + " " + summary, Detail: detail})
	}
}

// partners are an attribute or block that may exclude or need others.
type partners interface {
	GetConflictsWith() []string
	GetRequiredWith() []string
}

func (c *validator) together(name string, p partners, v Values, at place) {
	if !given(v[name]) {
		return
	}
	tell := func(summary, detail string) {
		c.problems = append(c.problems, Problem{Path: at.step(name).path, Summary: summary, Detail: detail})
	}
	for _, other := range p.GetConflictsWith() {
		if given(v[other]) {
			tell(fmt.Sprintf("Both %q and %q", name, other), "They exclude each other: leave one of the two out.")
		}
	}
	for _, other := range p.GetRequiredWith() {
		if !given(v[other]) {
			tell(fmt.Sprintf("%q without %q", name, other), fmt.Sprintf("Add %q, or leave %q out.", other, name))
		}
	}
}

// given says whether a value counts for what excludes or needs each other: an empty
// one is as good as none.
func given(v any) bool {
	switch v := v.(type) {
	case nil:
		return false
	case string:
		return v != ""
	case []any:
		return len(v) > 0
	case map[string]any:
		return len(v) > 0
	}
	return true
}
