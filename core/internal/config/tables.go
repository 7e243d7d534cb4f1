package config

import (
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/tunneld/tunneld/core/internal/listen"
	"github.com/tunneld/tunneld/core/internal/route"
	"github.com/tunneld/tunneld/internal/schema"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// The language's own blocks, in the form in which a plugin describes its own:
// one decoder serves both. docs/configuration.md says the same to users; a test
// compares the two. An attribute without a type is not a value but references
// or a mixed list, and is read by the code of its block.

// labelNames are the labels that each block asks for.
var labelNames = map[string][]string{
	"log": {}, "metrics": {}, "control": {}, "daemon": {}, "locals": {},
	"plugin":   {"NAME"},
	"upstream": {"TYPE", "NAME"},
	"listener": {"KIND", "NAME"},
	"route":    {"NAME"},
}

// openTypes are the blocks whose source is shown in full: nothing in them is a
// secret.
var openTypes = map[string]bool{
	"log": true, "metrics": true, "control": true, "daemon": true, "listener": true, "route": true,
}

// owners are the blocks that have common names.
var owners = map[string]schema.Owner{"listener": schema.Listeners, "upstream": schema.Upstreams}

// later are the names that are taken for what is to come, by block, beside the
// common ones; "match" is the one within route.
var later = map[string][]string{
	"match":  route.Later,
	"route":  {"on_remove"},
	"plugin": {"user", "sandbox"},
}

// tableOf returns what a block of the language may hold; nil for one that is
// unknown or whose body is a plugin's.
func tableOf(b *hclsyntax.Block) *pluginv1.Block {
	switch {
	case b.Type != "listener" && b.Type != "upstream":
		return tables[b.Type]
	case len(b.Labels) == 0:
		return nil
	case b.Type == "upstream":
		return tables["upstream."+b.Labels[0]]
	}
	kind, ok := listen.FindKind(b.Labels[0])
	if !ok {
		return nil
	}
	return listenerTable(kind)
}

var tables = map[string]*pluginv1.Block{
	"log": {Attributes: []*pluginv1.Attribute{
		schema.Attr("level", schema.OneOf("debug", "info", "warn", "error"), `"info"`),
		schema.Attr("format", schema.OneOf("text", "json"), `"text"`),
		schema.Attr("access", schema.Bool, `true`),
	}},
	"metrics": {Attributes: []*pluginv1.Attribute{schema.Required("address", schema.Text)}},
	"control": {Attributes: []*pluginv1.Attribute{schema.Required("address", schema.Text)}},
	"daemon": {Attributes: []*pluginv1.Attribute{
		schema.Attr("run_dir", schema.Text, ``),
		schema.Attr("plugin_dir", schema.Text, `"/usr/lib/tunneld/plugins"`),
		schema.Attr("shutdown_delay", schema.Duration, `"0s"`),
		schema.Attr("shutdown_timeout", schema.Duration, `"30s"`),
		schema.Attr("drain_timeout", schema.Duration, `"600s"`),
		schema.Attr("max_connections", schema.Count, `0`),
		schema.Attr("watch", schema.Bool, `false`),
	}},
	"plugin": {Attributes: []*pluginv1.Attribute{
		schema.Required("command", schema.List(schema.Text)),
		schema.Attr("sha256", schema.Text, ``),
		schema.Attr("files", schema.Map(schema.Text), `{}`),
		schema.Sensitive(schema.Attr("env", schema.Map(schema.Text), `{}`)),
	}},
	"upstream.direct": directTable(),
	"route": {
		Attributes: []*pluginv1.Attribute{schema.Required("upstreams", nil)},
		Blocks:     []*pluginv1.NestedBlock{schema.Single("match", matchAttributes()...), schema.BandwidthBlock()},
	},
}

// matchAttributes are what routes match by.
func matchAttributes() (attributes []*pluginv1.Attribute) {
	for _, k := range route.Keys() {
		t := schema.List(schema.Text)
		if k.References != "" || k.Numbers {
			t = nil
		}
		attributes = append(attributes, schema.Attr(k.Name, t, ``))
	}
	return attributes
}

// listenerWith says which listeners have a name that not all have, where one of a kind does
// not; empty: none.
func listenerWith(kind listen.Kind, attribute string) string {
	switch {
	case attribute == authBlock:
		return withPasswords(kind)
	case attribute == "tls":
		return "a listener of kind " + kindsWith(endsTLS) + ". Here TLS is between the client and the target, and goes through as it is"
	case slices.Contains(ofTargets, attribute):
		return "a listener of kind " + kindsWith(namesTarget) + ", whose clients name their target. Here the configuration does, and no client reaches another"
	}
	for _, k := range listen.Kinds() {
		if schema.Attribute(&pluginv1.Block{Attributes: k.Attributes}, attribute) != nil {
			return "a listener of kind " + k.Name
		}
	}
	return ""
}

// kindsWith names the kinds of listeners that have a property: "socks5, http or mixed".
func kindsWith(has func(listen.Kind) bool) string {
	var names []string
	for _, k := range listen.Kinds() {
		if has(k) {
			names = append(names, k.Name)
		}
	}
	last := len(names) - 1
	return strings.Join(names[:last], ", ") + " or " + names[last]
}

// listenerTable is the table of a kind.
func listenerTable(k listen.Kind) *pluginv1.Block {
	table, _ := schema.WithCommon(schema.Listeners, &pluginv1.Block{Attributes: k.Attributes})
	table.Blocks = slices.DeleteFunc(table.Blocks, func(b *pluginv1.NestedBlock) bool {
		return b.GetName() == authBlock && !k.Passwords || b.GetName() == "tls" && !endsTLS(k)
	})
	if !k.NamesTarget {
		table.Attributes = slices.DeleteFunc(table.Attributes, func(a *pluginv1.Attribute) bool { return slices.Contains(ofTargets, a.GetName()) })
	}
	return table
}

// directTable is that of the built-in upstream.
func directTable() *pluginv1.Block {
	table, _ := schema.WithCommon(schema.Upstreams, &pluginv1.Block{Blocks: []*pluginv1.NestedBlock{
		schema.Single("tcp", schema.Socket()...),
		schema.Single("tls",
			schema.Attr("ca_file", schema.File(), ``),
			schema.With(schema.Attr("cert_file", schema.File(), ``), "key_file"),
			schema.With(schema.Attr("key_file", schema.File(), ``), "cert_file"),
			schema.Attr("server_name", schema.Text, ``),
			schema.Attr("min_version", schema.OneOf("1.2", "1.3"), `"1.2"`),
			schema.Attr("max_version", schema.OneOf("1.2", "1.3"), ``),
			schema.Attr("cipher_suites", schema.List(schema.Text), ``),
			schema.Attr("key_log_file", schema.Text, ``),
			schema.Attr("insecure_skip_verify", schema.Bool, `false`),
		),
	}})
	return table
}
