package schema

import (
	"fmt"
	"strings"
	"testing"

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
	num   = typ(pluginv1.Kind_KIND_INT)
	dur   = typ(pluginv1.Kind_KIND_DURATION)
	siz   = typ(pluginv1.Kind_KIND_SIZE)
	lists = typ(pluginv1.Kind_KIND_LIST, typ(pluginv1.Kind_KIND_LIST, num))
	dict  = typ(pluginv1.Kind_KIND_MAP, dur)
)

func TestCheckRefuses(t *testing.T) {
	deep := &pluginv1.Block{}
	for range MaxDepth {
		deep = &pluginv1.Block{Blocks: []*pluginv1.NestedBlock{{Name: "x", Nesting: pluginv1.Nesting_NESTING_SINGLE, Body: deep}}}
	}
	deepType := str
	for range MaxDepth {
		deepType = typ(pluginv1.Kind_KIND_LIST, deepType)
	}
	wide := &pluginv1.Block{}
	for i := range maxNames + 1 {
		wide.Attributes = append(wide.Attributes, &pluginv1.Attribute{Name: fmt.Sprintf("a%d", i), Type: str})
	}
	attributes := func(a ...*pluginv1.Attribute) *pluginv1.Block { return &pluginv1.Block{Attributes: a} }
	for name, c := range map[string]struct {
		block *pluginv1.Block
		want  string
	}{
		"none":              {nil, "there is none"},
		"bad name":          {attributes(&pluginv1.Attribute{Name: "A b", Type: str}), `"A b": not a name`},
		"no name":           {attributes(&pluginv1.Attribute{Type: str}), `"": not a name`},
		"twice":             {attributes(&pluginv1.Attribute{Name: "a", Type: str}, &pluginv1.Attribute{Name: "a", Type: str}), `"a": there twice`},
		"reserved":          {attributes(&pluginv1.Attribute{Name: "pool", Type: str}), `"pool": the configuration language keeps`},
		"no type":           {attributes(&pluginv1.Attribute{Name: "a"}), `"a": unknown type`},
		"unknown type":      {attributes(&pluginv1.Attribute{Name: "a", Type: typ(99)}), `"a": unknown type 99`},
		"no element":        {attributes(&pluginv1.Attribute{Name: "a", Type: typ(pluginv1.Kind_KIND_MAP)}), "a map without the type"},
		"element":           {attributes(&pluginv1.Attribute{Name: "a", Type: typ(pluginv1.Kind_KIND_INT, str)}), "a int with elements"},
		"deep type":         {attributes(&pluginv1.Attribute{Name: "a", Type: deepType}), "the type is nested deeper"},
		"required default":  {attributes(&pluginv1.Attribute{Name: "a", Type: str, Required: true, DefaultJson: `""`}), "required, and has a default"},
		"default type":      {attributes(&pluginv1.Attribute{Name: "a", Type: num, DefaultJson: `"1"`}), `default: Its JSON must be a whole number, not a string`},
		"default null":      {attributes(&pluginv1.Attribute{Name: "a", Type: str, DefaultJson: `null`}), `default: It must not be null. Leave it out instead`},
		"default duration":  {attributes(&pluginv1.Attribute{Name: "a", Type: dur, DefaultJson: `"1m"`}), `A duration is seconds in decimal with the suffix "s"`},
		"default size":      {attributes(&pluginv1.Attribute{Name: "a", Type: siz, DefaultJson: `-1`}), `default: A size cannot be negative`},
		"default list":      {attributes(&pluginv1.Attribute{Name: "a", Type: lists, DefaultJson: `[[1], ["x"]]`}), `1.0: Its JSON must be a whole number, not a string`},
		"default not JSON":  {attributes(&pluginv1.Attribute{Name: "a", Type: str, DefaultJson: `x`}), "not JSON"},
		"default twice":     {attributes(&pluginv1.Attribute{Name: "a", Type: num, DefaultJson: `1 2`}), "more than one JSON value"},
		"sensitive default": {attributes(&pluginv1.Attribute{Name: "a", Type: dict, Sensitive: true, DefaultJson: `{"the-secret": 1}`}), "default: does not fit its type"},
		"long":              {attributes(&pluginv1.Attribute{Name: "a", Type: str, Doc: strings.Repeat("x", maxText+1)}), "a text of more than"},
		"deep":              {deep, "blocks are nested deeper"},
		"wide":              {wide, "more than 256 names"},
		"no nesting":        {&pluginv1.Block{Blocks: []*pluginv1.NestedBlock{{Name: "x", Body: &pluginv1.Block{}}}}, "unknown nesting 0"},
		"no body":           {&pluginv1.Block{Blocks: []*pluginv1.NestedBlock{{Name: "x", Nesting: pluginv1.Nesting_NESTING_SINGLE}}}, "the block has no body"},
	} {
		t.Run(name, func(t *testing.T) {
			err := Check(c.block)
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "the-secret") {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}
