package schema

import (
	"strings"
	"testing"

	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// TestCommonNames: each is one thing, is there once, and is sane; a plugin is refused
// those that no plugin ever could have.
func TestCommonNames(t *testing.T) {
	for _, owner := range []Owner{Upstreams, Listeners} {
		seen := map[string]bool{}
		for _, c := range CommonOf(owner) {
			name := c.Name()
			if seen[name] {
				t.Errorf("%q is defined twice", name)
			}
			seen[name] = true
			things := 0
			for _, is := range []bool{c.Attribute != nil, c.Block != nil, c.IsReserved()} {
				if is {
					things++
				}
			}
			if things != 1 {
				t.Errorf("%q is %d things", name, things)
			}
			if owner == Upstreams && c.IsReserved() != (c.Table == 0) {
				t.Errorf("%q is of table %d", name, c.Table)
			}
			if c.IsReserved() != IsReserved(owner, name) {
				t.Errorf("%q is reserved, or is not", name)
			}
			if owner == Upstreams {
				err := Check(&pluginv1.Block{Attributes: []*pluginv1.Attribute{{Name: name, Type: Text}}})
				if c.IsReserved() != (err != nil && strings.Contains(err.Error(), "reserves this name")) {
					t.Errorf("%q: a schema with it is %v", name, err)
				}
			}
		}
		whole, added := WithCommon(owner, &pluginv1.Block{})
		if err := Check(whole); err != nil || len(added) == 0 {
			t.Errorf("%v, %q", err, added)
		}
	}
	own := &pluginv1.Block{Attributes: []*pluginv1.Attribute{{Name: "half_close", Type: Text}, {Name: "mine", Type: Text}}}
	whole, added := WithCommon(Upstreams, own)
	if Attribute(whole, "half_close").GetType() != Text || Attribute(whole, "mine") == nil || Attribute(whole, "max_connections") == nil {
		t.Errorf("whole is %v", whole)
	}
	for _, name := range added {
		if name == "half_close" {
			t.Error("the daemon's was added to a schema that has its own")
		}
	}
	if names := OwnNames(own); len(names) != 1 || names[0].Name() != "half_close" || names[0].Table == 0 || names[0].Table > CommonTable() {
		t.Errorf("the schema's own are %v", names)
	}
}
