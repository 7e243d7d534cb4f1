package engine

import (
	"context"

	"github.com/tunneld/tunneld/core/diag"
	"github.com/tunneld/tunneld/core/internal/config"
	"github.com/tunneld/tunneld/internal/follow"
	"github.com/tunneld/tunneld/internal/userfile"
)

// reading returns what read makes of files, or why ctx has ended where that comes first. A
// network's file system may hold read up for as long as it likes, and nothing can break it
// off. Its goroutine is then left behind, so that whoever stops the daemon does not wait for
// that: it ends when the file system answers, or with the process. So read must change
// nothing, and use only what nobody changes.
func reading[T any](ctx context.Context, read func() T) (T, error) {
	done := make(chan T, 1)
	go func() { done <- read() }()
	select {
	case v := <-done:
		return v, nil
	case <-ctx.Done():
		var none T
		return none, context.Cause(ctx)
	}
}

// attempt is a configuration that has been parsed.
type attempt struct {
	cfg   *config.Config
	diags diag.Diagnostics
	names userfile.Sum // of its folder, before
}

// parse reads the configuration. The error is of ctx alone.
func parse(ctx context.Context, opts Options) (attempt, error) {
	return reading(ctx, func() attempt {
		if opts.Stdin != nil {
			cfg, diags := config.ParseFrom(opts.Stdin, opts.ConfigPath)
			return attempt{cfg: cfg, diags: diags}
		}
		read := opts.parse
		if read == nil {
			read = config.Parse
		}
		names := follow.FolderSum(opts.ConfigPath)
		cfg, diags := read(opts.ConfigPath)
		return attempt{cfg, diags, names}
	})
}
