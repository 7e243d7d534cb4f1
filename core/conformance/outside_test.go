package conformance

import (
	"testing"

	"github.com/tunneld/tunneld/internal/schema"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// TestOutside: of each limit a value is found that it does not allow, and of a type
// without any none.
func TestOutside(t *testing.T) {
	typ := func(k pluginv1.Kind) *pluginv1.Type { return &pluginv1.Type{Kind: k} }
	number, wait := typ(pluginv1.Kind_KIND_INT), typ(pluginv1.Kind_KIND_DURATION)
	for name, c := range map[string]struct {
		typ  *pluginv1.Type
		want any
	}{
		"one of":       {schema.OneOf("", "raw"), "kit: no such text\n"},
		"one line":     {&pluginv1.Type{Kind: pluginv1.Kind_KIND_STRING, OneLine: true}, "kit: no such text\n"},
		"pattern":      {&pluginv1.Type{Kind: pluginv1.Kind_KIND_STRING, Pattern: "a+"}, ""},
		"from 1":       {schema.Between(number, `1`, ``), 0},
		"to 1":         {schema.Between(number, ``, `1`), schema.MaxInt},
		"1s or none":   {schema.OrZero(schema.Between(wait, `"1s"`, ``)), "0.000000001s"},
		"to a minute":  {schema.Between(wait, ``, `"60s"`), "9000000000s"},
		"any text":     {schema.Text, nil},
		"any duration": {wait, nil},
		"any list":     {schema.List(number), nil},
	} {
		got, ok := outside(&pluginv1.Attribute{Name: "a", Type: c.typ})
		if got != c.want || ok != (c.want != nil) {
			t.Errorf("%s: %v, %v", name, got, ok)
		}
	}
}
