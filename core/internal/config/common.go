package config

import (
	"fmt"
	"time"

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
	for _, c := range schema.OwnNames(s.Block) {
		if c.Table <= s.CommonNames {
			return fmt.Errorf("check schema: %q: every upstream has an attribute of this name, which is the daemon's", c.Name())
		}
	}
	return nil
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
