package schema

import (
	"google.golang.org/protobuf/proto"

	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// What the daemon's own tables are written with.

// The types of attributes. Those of the daemon's durations and counts have limits:
// a Duration is "0s", for none, or at least a millisecond.
var (
	Text     = &pluginv1.Type{Kind: pluginv1.Kind_KIND_STRING}
	Bool     = &pluginv1.Type{Kind: pluginv1.Kind_KIND_BOOL}
	Duration = OrZero(Between(&pluginv1.Type{Kind: pluginv1.Kind_KIND_DURATION}, `"0.001s"`, ``))
	Count    = Between(&pluginv1.Type{Kind: pluginv1.Kind_KIND_INT}, `0`, `1073741824`)
)

// Between returns the type with a minimum and a maximum, each JSON or empty.
func Between(t *pluginv1.Type, least, most string) *pluginv1.Type {
	t = proto.CloneOf(t)
	t.MinimumJson, t.MaximumJson = least, most
	return t
}

// OrZero returns the type with zero allowed below its minimum.
func OrZero(t *pluginv1.Type) *pluginv1.Type {
	t = proto.CloneOf(t)
	t.OrZero = true
	return t
}

// OneOf is a text that is one of several.
func OneOf(texts ...string) *pluginv1.Type {
	return &pluginv1.Type{Kind: pluginv1.Kind_KIND_STRING, OneOf: texts}
}

// File is a text that names a file.
func File() *pluginv1.Type {
	return &pluginv1.Type{Kind: pluginv1.Kind_KIND_STRING, Path: pluginv1.PathUse_PATH_USE_FILE}
}

// With is the attribute that another one has to go with.
func With(a *pluginv1.Attribute, other string) *pluginv1.Attribute {
	a.RequiredWith = append(a.RequiredWith, other)
	return a
}

// Without is the attribute that another one excludes.
func Without(a *pluginv1.Attribute, other string) *pluginv1.Attribute {
	a.ConflictsWith = append(a.ConflictsWith, other)
	return a
}

// List is a list of elements of a type.
func List(of *pluginv1.Type) *pluginv1.Type {
	return &pluginv1.Type{Kind: pluginv1.Kind_KIND_LIST, Element: of}
}

// Map is a map of values of a type.
func Map(of *pluginv1.Type) *pluginv1.Type {
	return &pluginv1.Type{Kind: pluginv1.Kind_KIND_MAP, Element: of}
}

// Attr is an attribute with a default, which is JSON or empty.
func Attr(name string, t *pluginv1.Type, defaultJSON string) *pluginv1.Attribute {
	return &pluginv1.Attribute{Name: name, Type: t, DefaultJson: defaultJSON}
}

// Required is an attribute that has to be given.
func Required(name string, t *pluginv1.Type) *pluginv1.Attribute {
	return &pluginv1.Attribute{Name: name, Type: t, Required: true}
}

// Sensitive is the attribute with its value not to be shown.
func Sensitive(a *pluginv1.Attribute) *pluginv1.Attribute {
	a.Sensitive = true
	return a
}

// Single is a block that may be there once.
func Single(name string, attributes ...*pluginv1.Attribute) *pluginv1.NestedBlock {
	return &pluginv1.NestedBlock{
		Name:    name,
		Nesting: pluginv1.Nesting_NESTING_SINGLE,
		Body:    &pluginv1.Block{Attributes: attributes},
	}
}
