package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/tunneld/tunneld/core/internal/config"
	"github.com/tunneld/tunneld/core/internal/pluginhost"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// PluginInfo describes a plugin.
type PluginInfo struct {
	Name string
	// Source is "bundled" or the program's path.
	Source  string
	Version string
	Summary string
	Schema  *pluginv1.Block
	// Err is why the plugin could not be asked; the rest but Name may be empty
	// then.
	Err error
}

// DescribePlugins starts the named plugins, or where there are none every
// plugin that can be found, asks each what it is, and stops it again. The
// configuration, where ConfigPath is not empty, adds its plugin blocks; without
// one the plugin_dir is the default.
func DescribePlugins(ctx context.Context, opts Options, names []string) (infos []PluginInfo, err error) {
	cfg := config.Default()
	if opts.ConfigPath != "" {
		a, err := parse(ctx, opts)
		if err != nil {
			return nil, err
		}
		if cfg = a.cfg; a.diags.HasErrors() {
			return nil, fmt.Errorf("%s: %w: see tunneld validate", opts.ConfigPath, ErrInvalid)
		}
	}
	host, err := newHost("", opts, nil)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, host.Close(context.WithoutCancel(ctx))) }()
	if len(names) == 0 {
		if names, err = known(cfg, opts.Bundled); err != nil {
			return nil, err
		}
	}
	for _, name := range names {
		infos = append(infos, describe(ctx, host, cfg, opts, name))
	}
	return infos, nil
}

func describe(ctx context.Context, host *pluginhost.Host, cfg *config.Config, opts Options, name string) PluginInfo {
	info := PluginInfo{Name: name}
	spec, err := findPlugin(name, cfg, opts)
	if err != nil {
		info.Err = err
		return info
	}
	info.Source = spec.Source()
	plugin, err := host.Start(ctx, spec)
	if err != nil {
		info.Err = err
		return info
	}
	info.Version, info.Summary, info.Schema = plugin.Info().GetVersion(), plugin.Info().GetSummary(), plugin.Schema()
	return info
}

// findPlugin resolves a plugin's name with the configuration's plugin block.
func findPlugin(name string, cfg *config.Config, opts Options) (pluginhost.Spec, error) {
	var block *pluginhost.Block
	if b := pluginBlock(cfg, name); b != nil {
		block = &pluginhost.Block{Command: b.Command, SHA256: b.SHA256, Files: b.Files, Env: b.Env}
	}
	return pluginhost.Find(name, block, cfg.Daemon.PluginDir, opts.Bundled)
}

func pluginBlock(cfg *config.Config, name string) *config.Plugin {
	i := slices.IndexFunc(cfg.Plugins, func(b config.Plugin) bool { return b.Name == name })
	if i < 0 {
		return nil
	}
	return &cfg.Plugins[i]
}

// known lists the names of the plugins that can be found, each once, sorted.
func known(cfg *config.Config, bundled []string) ([]string, error) {
	names := slices.Clone(bundled)
	for _, b := range cfg.Plugins {
		names = append(names, b.Name)
	}
	if cfg.Daemon.PluginDir != "" {
		found, err := filepath.Glob(filepath.Join(cfg.Daemon.PluginDir, pluginhost.ProgramPrefix+"*"))
		if err != nil {
			return nil, fmt.Errorf("list plugins: %w", err)
		}
		for _, path := range found {
			if st, err := os.Stat(path); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
				names = append(names, strings.TrimPrefix(filepath.Base(path), pluginhost.ProgramPrefix))
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}
