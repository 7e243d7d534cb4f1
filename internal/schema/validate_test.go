package schema

import (
	"slices"
	"testing"

	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// TestWhatATypeAsksIsReadOnce: not for each element, of which a user may write many.
func TestWhatATypeAsksIsReadOnce(t *testing.T) {
	const elements = 1000
	cost := func(of *pluginv1.Type) float64 {
		list := &pluginv1.Block{Attributes: []*pluginv1.Attribute{Attr("a", List(of), ``)}}
		body := &pluginv1.Block{Attributes: []*pluginv1.Attribute{Attr("a", of, ``)}}
		blocks := &pluginv1.Block{Blocks: []*pluginv1.NestedBlock{{Name: "b", Nesting: pluginv1.Nesting_NESTING_REPEATED, Body: body}}}
		inList := Values{"a": slices.Repeat([]any{"x"}, elements)}
		inBlocks := Values{"b": slices.Repeat([]any{Values{"a": "x"}}, elements)}
		return testing.AllocsPerRun(1, func() {
			for _, p := range append(Validate(list, inList), Validate(blocks, inBlocks)...) {
				t.Errorf("%+v", p)
			}
		})
	}
	plain := cost(str)
	for name, of := range map[string]*pluginv1.Type{
		"pattern": {Kind: pluginv1.Kind_KIND_STRING, Pattern: "[a-z]+"},
		"limits":  Between(str, `1`, `10`),
	} {
		if more := cost(of) - plain; more >= elements {
			t.Errorf("%s: %v allocations for %d elements", name, more, 2*elements)
		}
	}
}
