// Package schema defines what the body of a block may contain, for the daemon and the
// SDK alike: names, types, the notation of durations and sizes, and the JSON that
// carries values. It checks schemas, and values against them. It knows neither HCL nor
// Go structs; core/internal/hclbody and plugins/sdk do.
package schema

import (
	"regexp"
	"slices"
	"time"

	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// The bounds of a plugin's schema: far beyond what a person would write, and
// small enough that a broken plugin costs nothing.
const (
	// MaxDepth bounds the nesting of blocks and of a type, and so the recursion
	// over both.
	MaxDepth = 8

	maxNames    = 256  // in one body
	maxTotal    = 2048 // in all bodies
	maxPartners = 64   // that one name excludes or needs
	maxText     = 8192 // bytes of a doc, a default or a deprecation
	maxProblems = 16   // reported of one schema
)

var (
	nameRE       = regexp.MustCompile(`^[a-z][a-z0-9_]{0,63}$`)
	pluginNameRE = regexp.MustCompile(`^[a-z][a-z0-9_]{0,31}$`)
)

// The rules that the names follow, for messages.
const (
	NameRule       = "a lower-case letter first, then up to 63 of a-z, 0-9 and _"
	PluginNameRule = "a lower-case letter first, then up to 31 of a-z, 0-9 and _"
)

// IsName says whether text can be the name of an attribute or nested block.
func IsName(text string) bool { return nameRE.MatchString(text) }

// IsPluginName says whether text can be the name of a plugin, and so the type of
// an upstream.
func IsPluginName(text string) bool { return pluginNameRE.MatchString(text) }

// Values are the values of a body by name. An attribute is a string, bool,
// int64 (an int, or a size in bytes), float64, time.Duration, []any or
// map[string]any; a single block is Values, a repeated one []any of Values, a
// labelled one map[string]any of Values. What is absent is not there.
type Values map[string]any

// Problem is something that is wrong with a body. Its texts never hold a value,
// only names and types.
type Problem struct {
	// Path leads to it from the body: names, the index in a list, a label.
	Path []string
	// Summary says what is wrong, Detail what to do next.
	Summary, Detail string
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

// Defaults returns the values of a body in which nothing is written. Single blocks
// are filled in.
func Defaults(block *pluginv1.Block) Values {
	v := Values{}
	for _, a := range block.GetAttributes() {
		if d, ok := Default(a); ok {
			v[a.GetName()] = d
		}
	}
	for _, b := range block.GetBlocks() {
		if b.GetNesting() == pluginv1.Nesting_NESTING_SINGLE {
			v[b.GetName()] = Defaults(b.GetBody())
		}
	}
	return v
}

// Default returns the attribute's default, of which Check has seen that it is one.
func Default(a *pluginv1.Attribute) (any, bool) {
	if a.GetDefaultJson() == "" {
		return nil, false
	}
	v, err := readValue(a.GetType(), []byte(a.GetDefaultJson()))
	return v, err == nil
}
