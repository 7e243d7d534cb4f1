// Package schema works with the schemas of plugins: it checks that one is sane,
// decodes the body of a block against it, puts the values into the JSON that a
// plugin is configured with, and prints a schema for people. It starts no
// plugin and knows nothing of the blocks of the configuration language.
package schema

import (
	"slices"
	"time"

	"github.com/hashicorp/hcl/v2"

	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// Values are the values of a body by name. An attribute is a string, bool,
// int64 (an int, or a size in bytes), float64, time.Duration, []any or
// map[string]any; a single block is Values, a repeated one []any of Values, a
// labelled one map[string]any of Values. What is absent is not there.
type Values map[string]any

// Problem is something that is wrong with a body. Its texts never hold a value
// of the configuration, only names and types.
type Problem struct {
	// Warning makes it a warning; a problem is an error otherwise.
	Warning bool
	// Machine says that what is written may be right, but that this machine does
	// not have it now.
	Machine bool
	// Summary says what is wrong, Detail what to do next.
	Summary, Detail string
	// Range is the place in the source.
	Range hcl.Range
}

// Text returns the attribute's text, or "".
func (v Values) Text(name string) string { s, _ := v[name].(string); return s }

// Bool returns the attribute's truth, or false.
func (v Values) Bool(name string) bool { b, _ := v[name].(bool); return b }

// Int returns the attribute's number, or 0.
func (v Values) Int(name string) int { n, _ := v[name].(int64); return int(n) }

// Duration returns the attribute's duration, or 0.
func (v Values) Duration(name string) time.Duration { d, _ := v[name].(time.Duration); return d }

// Block returns the single block's values, or nil.
func (v Values) Block(name string) Values { b, _ := v[name].(Values); return b }

// List returns the texts of a list of strings, or nil.
func (v Values) List(name string) []string {
	list, _ := v[name].([]any)
	var texts []string
	for _, e := range list {
		if s, ok := e.(string); ok {
			texts = append(texts, s)
		}
	}
	return texts
}

// Map returns a map of strings, or nil.
func (v Values) Map(name string) map[string]string {
	m, _ := v[name].(map[string]any)
	if len(m) == 0 {
		return nil
	}
	texts := make(map[string]string, len(m))
	for k, e := range m {
		if s, ok := e.(string); ok {
			texts[k] = s
		}
	}
	return texts
}

// Attribute returns the attribute of that name, or nil.
func Attribute(block *pluginv1.Block, name string) *pluginv1.Attribute {
	i := slices.IndexFunc(block.GetAttributes(), func(a *pluginv1.Attribute) bool { return a.GetName() == name })
	if i < 0 {
		return nil
	}
	return block.GetAttributes()[i]
}

// Nested returns the nested block of that name, or nil.
func Nested(block *pluginv1.Block, name string) *pluginv1.NestedBlock {
	i := slices.IndexFunc(block.GetBlocks(), func(b *pluginv1.NestedBlock) bool { return b.GetName() == name })
	if i < 0 {
		return nil
	}
	return block.GetBlocks()[i]
}
