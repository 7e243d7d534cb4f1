package schema

import (
	"slices"

	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// Owner is the kind of block that a common name is of.
type Owner int

// The blocks that have common names.
const (
	Upstreams Owner = iota
	Listeners
)

// Common is a name that means the same in every block of its kind, whatever its
// type, and so is the daemon's: it decodes and checks the value, and passes on what a
// plugin needs. A plugin's schema must not have it.
type Common struct {
	Of Owner
	// Table numbers the table that brought the name: a plugin that says that it was
	// built with an older one may have it for its own. Every change of the list that
	// is released is a new table. 0: no plugin ever could.
	Table uint32
	// ByPlugin says that a plugin has to keep to it: one that was built with an older
	// table cannot, and the name cannot be written in its blocks.
	ByPlugin bool
	// One of the two says what it holds; neither: it is reserved, and cannot be
	// written yet.
	Attribute *pluginv1.Attribute
	Block     *pluginv1.NestedBlock
	// Reserved is the name, where it is reserved.
	Reserved string
}

// common are the names, in the order in which they are shown. Of listeners no plugin
// has any yet.
var common = []Common{
	{Of: Upstreams, Table: 1, Attribute: Attr("max_connections", Count, ``)},
	{Of: Upstreams, Table: 1, Attribute: Attr("half_close", Duration, ``)},
	{Of: Upstreams, Table: 2, ByPlugin: true, Attribute: Sensitive(Attr("via", Text, ``))},
	{Of: Upstreams, Table: 2, ByPlugin: true, Attribute: Attr("bind", Text, ``)},
	{Of: Upstreams, Table: 3, Block: BandwidthBlock()},
	{Of: Upstreams, Reserved: "pool"},

	{Of: Listeners, Attribute: Required("address", Text)},
	{Of: Listeners, Attribute: Without(Attr("addresses", List(Text), ``), "address")},
	{Of: Listeners, Attribute: Attr("allow", List(Text), `[]`)},
	{Of: Listeners, Attribute: Attr("deny", List(Text), `[]`)},
	{Of: Listeners, Attribute: Attr("open", Bool, `false`)},
	{Of: Listeners, Attribute: Attr("deny_targets", List(Text), ``)},
	{Of: Listeners, Attribute: Attr("allow_targets", List(Text), ``)},
	{Of: Listeners, Block: listenersTLS()},
	{Of: Listeners, Block: Single("limits",
		Attr("max_connections", Count, `0`),
		Attr("max_per_source", Count, `0`),
		Attr("max_per_user", Count, `0`),
		Attr("max_rate", Count, `0`),
	)},
	{Of: Listeners, Block: Single("timeouts",
		Attr("handshake", Duration, `"10s"`),
		Attr("dial", Duration, `"35s"`),
		Attr("idle", Duration, `"0s"`),
		Attr("half_close", Duration, `"60s"`),
		Attr("lifetime", Duration, `"0s"`),
	)},
	{Of: Listeners, Block: Single("auth",
		Sensitive(Attr("users", Map(Text), `{}`)),
		Attr("htpasswd_file", File(), `""`),
	)},
	{Of: Listeners, Block: Single("tcp", append(Socket(), Attr("backlog", Between(Count, `0`, `65536`), `0`))...)},
	{Of: Listeners, Block: BandwidthBlock()},
	{Of: Listeners, Reserved: "proxy_protocol"},
}

// listenersTLS is how a listener speaks TLS with its clients.
func listenersTLS() *pluginv1.NestedBlock {
	b := Single("tls",
		With(Attr("cert_file", File(), ``), "key_file"),
		With(Attr("key_file", File(), ``), "cert_file"),
		Attr("client_ca_file", File(), ``),
		Attr("allow_san", List(Text), ``),
		Attr("min_version", OneOf("1.2", "1.3"), `"1.2"`),
		Attr("max_version", OneOf("1.2", "1.3"), ``),
		Attr("cipher_suites", List(Text), ``),
		Attr("alpn", List(Text), ``),
		Attr("half_close", OneOf("close_notify", "fin"), `"close_notify"`),
	)
	b.Body.Blocks = []*pluginv1.NestedBlock{{
		Name:    "certificate",
		Nesting: pluginv1.Nesting_NESTING_REPEATED,
		Body:    &pluginv1.Block{Attributes: []*pluginv1.Attribute{Required("cert_file", File()), Required("key_file", File())}},
	}}
	return b
}

// Bandwidth is the name of BandwidthBlock.
const Bandwidth = "bandwidth"

// BandwidthBlock limits how many bytes a second the connections of a listener, route or
// upstream move.
func BandwidthBlock() *pluginv1.NestedBlock {
	rate := OrZero(Between(&pluginv1.Type{Kind: pluginv1.Kind_KIND_SIZE}, `1024`, ``))
	return Single(Bandwidth,
		Attr("up", rate, `0`),
		Attr("down", rate, `0`),
		Attr("total_up", rate, `0`),
		Attr("total_down", rate, `0`),
	)
}

// Socket are the options of a socket; the limits are the kernel's.
func Socket() []*pluginv1.Attribute {
	period := OrZero(Between(Duration, `"1s"`, `"32767s"`))
	return []*pluginv1.Attribute{
		Attr("nodelay", Bool, `true`),
		Attr("keepalive_idle", period, `"30s"`),
		Attr("keepalive_interval", period, `"10s"`),
		Attr("keepalive_count", Between(Count, `0`, `127`), `6`),
		Attr("user_timeout", Duration, `"0s"`),
	}
}

// Name is the name.
func (c Common) Name() string {
	switch {
	case c.Attribute != nil:
		return c.Attribute.GetName()
	case c.Block != nil:
		return c.Block.GetName()
	}
	return c.Reserved
}

// IsReserved says whether the name cannot be written yet.
func (c Common) IsReserved() bool { return c.Reserved != "" }

// CommonOf returns the common names of a kind of block.
func CommonOf(of Owner) []Common {
	return slices.DeleteFunc(slices.Clone(common), func(c Common) bool { return c.Of != of })
}

// CommonTable numbers the newest table of common names.
func CommonTable() (newest uint32) {
	for _, c := range common {
		newest = max(newest, c.Table)
	}
	return newest
}

// IsReserved says whether a name of a kind of block is taken for what is to come.
func IsReserved(of Owner, name string) bool {
	return slices.ContainsFunc(common, func(c Common) bool { return c.Of == of && c.IsReserved() && c.Reserved == name })
}

// OwnNames are the common names of upstreams that a plugin's schema has all the same.
func OwnNames(block *pluginv1.Block) (own []Common) {
	for _, c := range CommonOf(Upstreams) {
		if has(block, c.Name()) {
			own = append(own, c)
		}
	}
	return own
}

// WithCommon is the block with the common names before its own, and which these are:
// those that it does not have itself.
func WithCommon(of Owner, block *pluginv1.Block) (whole *pluginv1.Block, added []string) {
	whole = &pluginv1.Block{Doc: block.GetDoc()}
	for _, c := range CommonOf(of) {
		switch {
		case c.IsReserved() || has(block, c.Name()):
			continue
		case c.Attribute != nil:
			whole.Attributes = append(whole.Attributes, c.Attribute)
		default:
			whole.Blocks = append(whole.Blocks, c.Block)
		}
		added = append(added, c.Name())
	}
	whole.Attributes = append(whole.Attributes, block.GetAttributes()...)
	whole.Blocks = append(whole.Blocks, block.GetBlocks()...)
	return whole, added
}

func has(block *pluginv1.Block, name string) bool {
	return Attribute(block, name) != nil || Nested(block, name) != nil
}
