package config

import (
	"maps"
	"reflect"

	"github.com/tunneld/tunneld/core/internal/listen"
	"github.com/tunneld/tunneld/internal/schema"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// written is what a block says: its values, defaults filled in, and the table that
// they were decoded with. Of attributes without a type the code that reads them adds
// the values.
type written struct {
	table  *pluginv1.Block
	values schema.Values
}

// Changed names the attributes and nested blocks of a block ("listener.tcp.orders",
// "log") that differ between two configurations, in the order of the block's table. A
// block that only one of the two has differs in all that it says.
func Changed(was, is *Config, id string) (names []string) {
	before, after := was.src.written[id], is.src.written[id]
	table := after.table
	if table == nil {
		table = before.table
	}
	for _, name := range namesOf(table) {
		if !reflect.DeepEqual(before.values[name], after.values[name]) {
			names = append(names, name)
		}
	}
	return names
}

// namesOf are what a body may hold.
func namesOf(table *pluginv1.Block) (names []string) {
	for _, a := range table.GetAttributes() {
		names = append(names, a.GetName())
	}
	for _, n := range table.GetBlocks() {
		names = append(names, n.GetName())
	}
	return names
}

// Tables returns what each block of the language may hold, by ID without a name:
// "log", "listener.tcp", "upstream.direct".
func Tables() map[string]*pluginv1.Block {
	all := maps.Clone(tables)
	for _, k := range listen.Kinds() {
		all["listener."+k.Name] = listenerTable(k)
	}
	return all
}
