package config

import (
	"fmt"
	"slices"
	"time"

	"github.com/tunneld/tunneld/internal/pluginwire"
	"github.com/tunneld/tunneld/internal/schema"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// PluginSchema is what a plugin says of the body of its upstreams.
type PluginSchema struct {
	Block *pluginv1.Block
	// CommonNames numbers the table of common names that the plugin knows.
	CommonNames uint32
}

// Check says whether the schema is sane, and leaves the daemon its names.
func (s PluginSchema) Check() error {
	if err := schema.Check(s.Block); err != nil {
		return err
	}
	for _, name := range s.own() {
		if pluginwire.CommonNames[name] <= s.CommonNames {
			return fmt.Errorf("check schema: %q: every upstream has an attribute of this name, which is the daemon's", name)
		}
	}
	return nil
}

// own are the common names that the plugin's schema has.
func (s PluginSchema) own() (names []string) {
	for _, a := range commonAttributes {
		if schema.Attribute(s.Block, a.GetName()) != nil || schema.Nested(s.Block, a.GetName()) != nil {
			names = append(names, a.GetName())
		}
	}
	return names
}

// withCommon is the plugin's block with the common attributes that it does not
// have itself.
func (s PluginSchema) withCommon() (b *pluginv1.Block, added []string) {
	own := s.own()
	b = &pluginv1.Block{Attributes: slices.Clip(s.Block.GetAttributes()), Blocks: s.Block.GetBlocks()}
	for _, a := range commonAttributes {
		if !slices.Contains(own, a.GetName()) {
			b.Attributes = append(b.Attributes, a)
			added = append(added, a.GetName())
		}
	}
	return b, added
}

// common reads the common attributes.
func common(v schema.Values) (c Common) {
	if n, ok := v["max_connections"].(int64); ok {
		limit := int(n)
		c.MaxConnections = &limit
	}
	if d, ok := v["half_close"].(time.Duration); ok {
		c.HalfClose = &d
	}
	return c
}
