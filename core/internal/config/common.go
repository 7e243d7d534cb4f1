package config

import (
	"fmt"
	"time"

	"github.com/tunneld/tunneld/internal/outbound"
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
			return fmt.Errorf("check schema: %q: this attribute of every upstream belongs to the daemon", c.Name())
		}
	}
	return nil
}

// missing are the common names that the plugin would have to keep to and was built
// before.
func (s PluginSchema) missing() (names []string) {
	for _, c := range schema.CommonOf(schema.Upstreams) {
		if c.ByPlugin && c.Table > s.CommonNames {
			names = append(names, c.Name())
		}
	}
	return names
}

// wrongValue is what is wrong with the value of a common attribute.
type wrongValue struct{ name, problem string }

func (w wrongValue) summary() string { return fmt.Sprintf("Wrong value for %q", w.name) }

// common reads the common attributes, and says what the schema cannot of them.
func common(v schema.Values) (c Common, wrong []wrongValue) {
	if n, ok := v["max_connections"].(int64); ok {
		limit := int(n)
		c.MaxConnections = &limit
	}
	if d, ok := v["half_close"].(time.Duration); ok {
		c.HalfClose = &d
	}
	var err error
	if c.Via, err = outbound.ParseVia(v.Text("via")); err != nil {
		wrong = append(wrong, wrongValue{"via", "It is not a proxy: " + err.Error() + ". " + outbound.ViaHelp})
	}
	if c.Bind, err = outbound.ParseBind(v.Text("bind")); err != nil {
		wrong = append(wrong, wrongValue{"bind", "It is not a usable address: " + err.Error() + ". " + outbound.BindHelp})
	}
	c.Bandwidth = bandwidth(v)
	return c, wrong
}
