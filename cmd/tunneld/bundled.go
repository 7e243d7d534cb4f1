package main

import (
	"github.com/tunneld/tunneld/core"
	"github.com/tunneld/tunneld/plugins/sapsocks"
	"github.com/tunneld/tunneld/plugins/sdk"
)

// bundled is the explicit list of the plugins that this program can be.
func bundled() []sdk.Plugin {
	return []sdk.Plugin{
		sapsocks.Plugin(),
	}
}

func options(configPath string) core.Options {
	opts := core.Options{ConfigPath: configPath, Version: versionText()}
	for _, p := range bundled() {
		opts.Bundled = append(opts.Bundled, p.Name)
	}
	return opts
}
