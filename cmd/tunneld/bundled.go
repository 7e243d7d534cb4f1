package main

import (
	"github.com/tunneld/tunneld/core"
	"github.com/tunneld/tunneld/internal/version"
	"github.com/tunneld/tunneld/plugins/azrelay"
	"github.com/tunneld/tunneld/plugins/sapsocks"
	"github.com/tunneld/tunneld/plugins/sdk"
	"github.com/tunneld/tunneld/plugins/soht"
	"github.com/tunneld/tunneld/plugins/websocks"
)

// bundled is the explicit list of the plugins that this program can be.
func bundled() []sdk.Plugin {
	return []sdk.Plugin{
		sapsocks.Plugin(),
		websocks.Plugin(),
		soht.Plugin(),
		azrelay.Plugin(),
	}
}

func options(configPath string) core.Options {
	opts := core.Options{ConfigPath: configPath, Version: version.Text()}
	for _, p := range bundled() {
		opts.Bundled = append(opts.Bundled, p.Name)
	}
	return opts
}
