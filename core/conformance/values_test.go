package conformance

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// TestWalkAndDescend: every body of a schema is reached, in what the
// configuration has and in what it has not.
func TestWalkAndDescend(t *testing.T) {
	text := &pluginv1.Type{Kind: pluginv1.Kind_KIND_STRING}
	leaf := &pluginv1.Block{Attributes: []*pluginv1.Attribute{{Name: "a", Type: text}}}
	schema := &pluginv1.Block{Attributes: leaf.GetAttributes(), Blocks: []*pluginv1.NestedBlock{
		{Name: "one", Nesting: pluginv1.Nesting_NESTING_SINGLE, Body: &pluginv1.Block{Blocks: []*pluginv1.NestedBlock{
			{Name: "deep", Nesting: pluginv1.Nesting_NESTING_REPEATED, Body: leaf},
		}}},
		{Name: "many", Nesting: pluginv1.Nesting_NESTING_REPEATED, Body: leaf},
		{Name: "by", Nesting: pluginv1.Nesting_NESTING_LABELLED, Body: leaf},
	}}
	for _, tc := range []struct{ values, want string }{
		{`{}`, `{"a":1,"by":{"kit":{"a":1}},"many":[{"a":1}],"one":{"deep":[{"a":1}]}}`},
		{
			`{"a":"x","by":{"bob":{"a":"x"}},"many":[{"a":"x"},{"a":"y"}],"one":{"deep":[{"a":"x"}]}}`,
			`{"a":1,"by":{"bob":{"a":"x"},"kit":{"a":1}},"many":[{"a":1},{"a":"y"}],"one":{"deep":[{"a":1}]}}`,
		},
	} {
		var root map[string]any
		if err := json.Unmarshal([]byte(tc.values), &root); err != nil {
			t.Fatal(err)
		}
		var paths []string
		walk(schema, nil, func(path []string, b *pluginv1.Block) {
			paths = append(paths, strings.Join(path, "."))
			if len(b.GetAttributes()) > 0 {
				descend(schema, root, path)["a"] = 1
			}
		})
		if want := []string{"", "one", "one.deep.0", "many.0", "by.kit"}; !slices.Equal(paths, want) {
			t.Errorf("visited %q", paths)
		}
		if got, err := json.Marshal(root); err != nil || string(got) != tc.want {
			t.Errorf("%s became %s, %v", tc.values, got, err)
		}
	}
}

// TestMisfits: no value of a check fits the type that it is tried on.
func TestMisfits(t *testing.T) {
	for n, name := range pluginv1.Kind_name {
		if n == 0 {
			continue
		}
		value, what := misfit(&pluginv1.Type{Kind: pluginv1.Kind(n)})
		b, err := json.Marshal(value)
		if err != nil || what == "" {
			t.Errorf("%s: %v, %q", name, err, what)
		}
		fits := map[byte]string{'"': "KIND_STRING KIND_DURATION", '[': "KIND_LIST", '{': "KIND_MAP", 't': "KIND_BOOL", 'f': "KIND_BOOL"}
		if slices.Contains(strings.Fields(fits[b[0]]), name) {
			t.Errorf("%s fits %s", b, name)
		}
	}
}
