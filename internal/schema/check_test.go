package schema

import (
	"fmt"
	"slices"
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
		"twice":             {attributes(&pluginv1.Attribute{Name: "a", Type: str}, &pluginv1.Attribute{Name: "a", Type: str}), `"a": defined twice`},
		"reserved":          {attributes(&pluginv1.Attribute{Name: "pool", Type: str}), `"pool": the configuration language reserves`},
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

func TestCheckRefusesLimits(t *testing.T) {
	kinds := []pluginv1.Kind{pluginv1.Kind_KIND_STRING, pluginv1.Kind_KIND_INT, pluginv1.Kind_KIND_DURATION, pluginv1.Kind_KIND_SIZE}
	one := func(kind int, change func(*pluginv1.Attribute)) *pluginv1.Block {
		a := &pluginv1.Attribute{Name: "a", Type: typ(kinds[kind])}
		change(a)
		return &pluginv1.Block{Attributes: []*pluginv1.Attribute{a, {Name: "with", Type: str, DefaultJson: `"x"`}, {Name: "b", Type: str}}}
	}
	for name, c := range map[string]struct {
		block *pluginv1.Block
		want  string
	}{
		"minimum of another type": {one(1, func(a *pluginv1.Attribute) { a.Type.MinimumJson = `"x"` }), "must be a whole number"},
		"minimum of a bool":       {one(0, func(a *pluginv1.Attribute) { a.Type = typ(pluginv1.Kind_KIND_BOOL); a.Type.MinimumJson = `1` }), "a bool has no minimum"},
		"a user's duration":       {one(2, func(a *pluginv1.Attribute) { a.Type.MinimumJson = `"1m"` }), "A duration is seconds"},
		"negative length":         {one(0, func(a *pluginv1.Attribute) { a.Type.MaximumJson = `-1` }), "a length cannot be negative"},
		"turned round":            {one(3, func(a *pluginv1.Attribute) { a.Type.MinimumJson, a.Type.MaximumJson = `2`, `1` }), "the minimum is above the maximum"},
		"zero of a text":          {one(0, func(a *pluginv1.Attribute) { a.Type.MinimumJson, a.Type.OrZero = `2`, true }), "zero is allowed only beside a minimum"},
		"zero without a minimum":  {one(1, func(a *pluginv1.Attribute) { a.Type.OrZero = true }), "zero is allowed only beside a minimum"},
		"one of numbers":          {one(1, func(a *pluginv1.Attribute) { a.Type.OneOf = []string{"x"} }), "limits of strings on type"},
		"one of two that are one": {one(0, func(a *pluginv1.Attribute) { a.Type.OneOf = []string{"x", "x"} }), "appears twice"},
		"no regular expression":   {one(0, func(a *pluginv1.Attribute) { a.Type.Pattern = "(" }), "is not a regular expression"},
		"out of its group":        {one(0, func(a *pluginv1.Attribute) { a.Type.Pattern = "a)|(b" }), "is not a regular expression"},
		"a long one":              {one(0, func(a *pluginv1.Attribute) { a.Type.Pattern = strings.Repeat("x", maxPattern+1) }), "a pattern of more than"},
		"path of an int":          {one(1, func(a *pluginv1.Attribute) { a.Type.Path = pluginv1.PathUse_PATH_USE_FILE }), "limits of strings on type"},
		"in a list":               {one(0, func(a *pluginv1.Attribute) { a.Type = List(&pluginv1.Type{Kind: kinds[1], Pattern: "x"}) }), "limits of strings on type"},
		"default below":           {one(1, func(a *pluginv1.Attribute) { a.Type.MinimumJson, a.DefaultJson = `2`, `1` }), "default: it is out of range"},
		"default beside":          {one(0, func(a *pluginv1.Attribute) { a.Type.OneOf, a.DefaultJson = []string{"x"}, `"y"` }), "default: Wrong value for it: It is one of"},
		"a dial's time is a text": {one(0, func(a *pluginv1.Attribute) { a.DialTime = pluginv1.DialTime_DIAL_TIME_STEP }), "only a duration is a time of a dial"},
		"excludes nobody":         {one(0, func(a *pluginv1.Attribute) { a.ConflictsWith = []string{"nobody"} }), `no other "nobody"`},
		"needs itself":            {one(0, func(a *pluginv1.Attribute) { a.RequiredWith = []string{"a"} }), `no other "a"`},
		"excludes a default":      {one(0, func(a *pluginv1.Attribute) { a.ConflictsWith = []string{"with"} }), "has a default"},
		"excludes too many":       {one(0, func(a *pluginv1.Attribute) { a.ConflictsWith = slices.Repeat([]string{"b"}, maxPartners+1) }), "excludes or needs more than"},
		"needs too many": {one(0, func(a *pluginv1.Attribute) {
			a.ConflictsWith, a.RequiredWith = []string{"b"}, slices.Repeat([]string{"b"}, maxPartners)
		}), "excludes or needs more than"},
		"a long minimum":       {one(1, func(a *pluginv1.Attribute) { a.Type.MinimumJson = strings.Repeat("0", maxLimit) + "1" }), "a minimum or maximum of more than"},
		"a long maximum":       {one(2, func(a *pluginv1.Attribute) { a.Type.MaximumJson = `"1s"` + strings.Repeat(" ", maxLimit) }), "a minimum or maximum of more than"},
		"has a default itself": {one(0, func(a *pluginv1.Attribute) { a.RequiredWith, a.DefaultJson = []string{"b"}, `"x"` }), "has a default"},
	} {
		if err := Check(c.block); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	// A newer plugin's way to use a path is none that matters here.
	if err := Check(one(0, func(a *pluginv1.Attribute) { a.Type.Path = 99 })); err != nil {
		t.Error(err)
	}
}
