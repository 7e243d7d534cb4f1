package core

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/tunneld/tunneld/core/internal/engine"
	"github.com/tunneld/tunneld/core/internal/hclbody"
	"github.com/tunneld/tunneld/internal/schema"
)

// PluginInfo describes a plugin that a configuration may name.
type PluginInfo struct {
	// Name is the type of its upstreams: upstream "NAME" "…".
	Name string
	// Source is "bundled" or the path of its program.
	Source string
	// Version and Summary are as the plugin gives them.
	Version, Summary string
	// Err is why the plugin could not be asked; Version and Summary are empty then, and
	// Source may be. Nil: it answered.
	Err error
}

// Plugins starts every plugin that can be found: the bundled ones, those of the
// configuration where ConfigPath is not empty, and those in its plugin_dir or,
// without a configuration, the default one. It asks each what it is, and stops
// it again. One that does not start has its Err set.
func Plugins(ctx context.Context, opts Options) ([]PluginInfo, error) {
	found, err := engine.DescribePlugins(ctx, engineOptions(opts), nil)
	if err != nil {
		return nil, err
	}
	infos := make([]PluginInfo, len(found))
	for i, p := range found {
		infos[i] = PluginInfo{Name: p.Name, Source: p.Source, Version: p.Version, Summary: p.Summary, Err: p.Err}
	}
	return infos, nil
}

// SchemaFormats are the formats that WriteSchema knows.
var SchemaFormats = hclbody.Formats

// WriteSchema writes what an upstream of the plugin may be configured with, in
// one of SchemaFormats.
func WriteSchema(ctx context.Context, w io.Writer, opts Options, plugin, format string) error {
	infos, err := engine.DescribePlugins(ctx, engineOptions(opts), []string{plugin})
	if err != nil {
		return err
	}
	if len(infos) != 1 {
		return errors.New("no such plugin")
	}
	if infos[0].Err != nil {
		return infos[0].Err
	}
	if err := schema.Check(infos[0].Schema); err != nil {
		return fmt.Errorf("the plugin %q has a broken schema, which its author has to fix: %w", plugin, err)
	}
	return hclbody.Render(w, format, plugin, infos[0].Schema)
}
