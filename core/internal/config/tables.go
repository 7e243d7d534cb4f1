package config

import (
	"slices"

	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/tunneld/tunneld/core/internal/listen"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// The language's own blocks, in the form in which a plugin describes its own:
// one decoder serves both. docs/configuration.md says the same to users; a test
// compares the two. An attribute without a type is not a value but references
// or a mixed list, and is read by the code of its block.

// labelNames are the labels that each block asks for.
var labelNames = map[string][]string{
	"log": {}, "metrics": {}, "control": {}, "daemon": {},
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

// later are the names that are taken for what is to come, by block; "match" is
// the one within route.
var later = map[string][]string{
	"listener": {"tls", "auth", "allow", "deny", "targets", "proxy_protocol", "bandwidth"},
	"upstream": {"pool", "bandwidth"},
	"match":    {"sources", "users"},
	"route":    {"on_remove"},
	"plugin":   {"user", "sandbox"},
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
	return listenerTable(kind.Attributes...)
}

var tables = map[string]*pluginv1.Block{
	"log": {Attributes: []*pluginv1.Attribute{
		attr("level", text, `"info"`),
		attr("format", text, `"text"`),
		attr("access", boolean, `true`),
	}},
	"metrics": {Attributes: []*pluginv1.Attribute{required("address", text)}},
	"control": {Attributes: []*pluginv1.Attribute{required("address", text)}},
	"daemon": {Attributes: []*pluginv1.Attribute{
		attr("run_dir", text, ``),
		attr("plugin_dir", text, `"/usr/lib/tunneld/plugins"`),
		attr("shutdown_delay", duration, `"0s"`),
		attr("shutdown_timeout", duration, `"30s"`),
		attr("drain_timeout", duration, `"600s"`),
		attr("max_connections", integer, `0`),
	}},
	"plugin": {Attributes: []*pluginv1.Attribute{
		required("command", list(text)),
		attr("sha256", text, ``),
		attr("files", dict(text), `{}`),
		sensitive(attr("env", dict(text), `{}`)),
	}},
	"upstream.direct": {Attributes: commonAttributes, Blocks: []*pluginv1.NestedBlock{nested("tcp", socketAttributes...)}},
	"route": {
		Attributes: []*pluginv1.Attribute{required("upstreams", nil)},
		Blocks: []*pluginv1.NestedBlock{nested("match",
			attr("listeners", nil, ``),
			attr("hosts", list(text), ``),
			attr("ports", nil, ``),
		)},
	},
}

// commonAttributes are those of every upstream, whatever its type: the daemon's,
// and not its plugin's. pluginwire.CommonNames has the same names.
var commonAttributes = []*pluginv1.Attribute{
	attr("max_connections", integer, ``),
	attr("half_close", duration, ``),
}

var socketAttributes = []*pluginv1.Attribute{
	attr("nodelay", boolean, `true`),
	attr("keepalive_idle", duration, `"30s"`),
	attr("keepalive_interval", duration, `"10s"`),
	attr("keepalive_count", integer, `6`),
	attr("user_timeout", duration, `"0s"`),
}

// listenerTable is the table of a kind that has attributes of its own.
func listenerTable(own ...*pluginv1.Attribute) *pluginv1.Block {
	attributes := append([]*pluginv1.Attribute{required("address", text)}, own...)
	return &pluginv1.Block{
		Attributes: append(attributes, attr("open", boolean, `false`)),
		Blocks: []*pluginv1.NestedBlock{
			nested("limits",
				attr("max_connections", integer, `0`),
				attr("max_per_source", integer, `0`),
			),
			nested("timeouts",
				attr("handshake", duration, `"10s"`),
				attr("dial", duration, `"30s"`),
				attr("idle", duration, `"0s"`),
				attr("half_close", duration, `"60s"`),
				attr("lifetime", duration, `"0s"`),
			),
			nested("tcp", append(slices.Clone(socketAttributes), attr("backlog", integer, `0`))...),
		},
	}
}

var (
	text     = &pluginv1.Type{Kind: pluginv1.Kind_KIND_STRING}
	boolean  = &pluginv1.Type{Kind: pluginv1.Kind_KIND_BOOL}
	integer  = &pluginv1.Type{Kind: pluginv1.Kind_KIND_INT}
	duration = &pluginv1.Type{Kind: pluginv1.Kind_KIND_DURATION}
)

func list(of *pluginv1.Type) *pluginv1.Type {
	return &pluginv1.Type{Kind: pluginv1.Kind_KIND_LIST, Element: of}
}

func dict(of *pluginv1.Type) *pluginv1.Type {
	return &pluginv1.Type{Kind: pluginv1.Kind_KIND_MAP, Element: of}
}

func attr(name string, t *pluginv1.Type, defaultJSON string) *pluginv1.Attribute {
	return &pluginv1.Attribute{Name: name, Type: t, DefaultJson: defaultJSON}
}

func required(name string, t *pluginv1.Type) *pluginv1.Attribute {
	return &pluginv1.Attribute{Name: name, Type: t, Required: true}
}

func sensitive(a *pluginv1.Attribute) *pluginv1.Attribute {
	a.Sensitive = true
	return a
}

func nested(name string, attributes ...*pluginv1.Attribute) *pluginv1.NestedBlock {
	return &pluginv1.NestedBlock{
		Name:    name,
		Nesting: pluginv1.Nesting_NESTING_SINGLE,
		Body:    &pluginv1.Block{Attributes: attributes},
	}
}

// bounds are the bounds of whole numbers and durations (in the attribute's own
// unit, here seconds) by name: the kernel's, where it has them.
var bounds = map[string]struct {
	least, most int64
	unit        string
}{
	"max_connections":    {0, 1 << 30, ""},
	"max_per_source":     {0, 1 << 30, ""},
	"backlog":            {0, 1 << 16, ""},
	"keepalive_count":    {0, 127, ""},
	"keepalive_idle":     {1, 32767, "s"},
	"keepalive_interval": {1, 32767, "s"},
}
