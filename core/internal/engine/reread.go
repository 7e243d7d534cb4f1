package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"

	"github.com/tunneld/tunneld/core/diag"
	"github.com/tunneld/tunneld/core/status"
	"github.com/tunneld/tunneld/internal/userfile"
)

// reread has the bodies of these blocks evaluated again, since files that they read
// have changed, and puts them in force: all together, or else each that can be. The
// rest of the configuration is the one in force, whatever has become of its files. Those in
// tried have failed before, and this is another try. again are the blocks whose values may
// be right, but something else was in the way: one more may help.
func (e *Engine) reread(ctx context.Context, blockIDs []string, tried map[string]bool) (again []string) {
	e.inTurn(ctx, func(ctx context.Context, _ *status.Reload) {
		if len(blockIDs) > 1 && e.tryReread(ctx, blockIDs).err == nil {
			return
		}
		for _, id := range blockIDs {
			r := e.tryReread(ctx, []string{id})
			if r.err == nil || ctx.Err() != nil {
				continue
			}
			e.keepOld(id, r, tried[id])
			if !errors.Is(r.err, ErrInvalid) {
				again = append(again, id)
			}
		}
	})
	return again
}

// rereading is the outcome of one.
type rereading struct {
	changed map[string][]string // by block ID, the files whose content is another
	diags   diag.Diagnostics
	err     error
}

// tryReread puts the bodies in force, or changes nothing.
func (e *Engine) tryReread(ctx context.Context, blockIDs []string) rereading {
	cfg := e.current.Load().cfg
	was := cfg.ValueFiles()
	// A reload may have taken a block away, or its files.
	blockIDs = slices.DeleteFunc(slices.Clone(blockIDs), func(id string) bool { return was[id] == nil })
	now, err := reading(ctx, func() attempt {
		next, diags := cfg.Reread(blockIDs)
		return attempt{cfg: next, diags: diags}
	})
	if err != nil {
		return rereading{err: err}
	}
	next, is := now.cfg, now.cfg.ValueFiles()
	r := rereading{changed: map[string][]string{}, diags: now.diags}
	for _, id := range blockIDs {
		files := differing(was[id], is[id])
		if len(files) > 0 {
			r.changed[id] = files
		} else if e.followed.tell(id, "") != "" {
			e.log.Info("the files of a block match the values in force again", named(id)...)
		}
	}
	if len(r.changed) == 0 {
		return r
	}
	r.diags, _, r.err = e.replace(ctx, renewal{cfg: next, diags: now.diags, only: blockIDs})
	if r.err != nil {
		return r
	}
	r.diags.Problems().Log(e.log)
	for _, id := range slices.Sorted(maps.Keys(r.changed)) {
		e.log.Info("files have changed, and the block that reads them uses the new values", named(id, "files", strings.Join(r.changed[id], ", "), "generation", e.number)...)
	}
	return r
}

// differing are the files that one of the two lacks, or has with another content.
func differing(was, is map[string]userfile.Sum) (files []string) {
	for path, sum := range is {
		if before, ok := was[path]; !ok || before != sum {
			files = append(files, path)
		}
	}
	for path := range was {
		if _, ok := is[path]; !ok {
			files = append(files, path)
		}
	}
	slices.Sort(files)
	return files
}

// keepOld tells that what files hold now is not in force, and why; of another try that
// fails the log need not.
func (e *Engine) keepOld(blockID string, r rereading, tried bool) {
	files := strings.Join(r.changed[blockID], ", ")
	why := r.err.Error()
	if r.diags.HasErrors() {
		why = r.diags.Error()
	}
	e.followed.tell(blockID, fmt.Sprintf("%s: %s", files, why))
	level := slog.LevelWarn
	if tried {
		level = slog.LevelDebug
	}
	e.log.Log(context.Background(), level, "files have changed, and the block that reads them cannot use them: its old values stay in force", named(blockID, "files", files, "err", why)...)
}

// named are a log line's attributes, of a block with this ID.
func named(blockID string, attrs ...any) []any {
	kind, name, _ := strings.Cut(blockID, ".")
	return append([]any{kind, name}, attrs...)
}

// reloadChanged is a reload that is not asked for: a file of the configuration may have
// changed, or come or gone.
func (e *Engine) reloadChanged(ctx context.Context) {
	e.inTurn(ctx, func(ctx context.Context, r *status.Reload) {
		a, err := parse(ctx, e.opts)
		if err != nil || e.followed.knows(a.cfg) {
			return // broken off, or another file of the folder
		}
		e.log.Info("the configuration has changed on disk")
		e.reload(ctx, r, a, status.ReloadOptions{})
	})
}
