package engine

import (
	"context"
	"errors"
)

// step is one part of putting a configuration in force, by a start, a reload or a
// restart of a plugin. Each of its functions may be nil.
type step struct {
	name string
	// prepare does all that can fail, and nothing that the configuration in force
	// notices. On an error it may leave things behind: undo takes them back.
	prepare func(context.Context) error
	// undo takes back what prepare has done, all of it or a part. Its context has no
	// end. What it cannot take back it says.
	undo func(context.Context) error
	// commit puts in force what was prepared. It cannot fail: what may still go wrong,
	// such as the close of a socket that nobody needs any more, it logs.
	commit func()
}

// transact prepares all steps in order, and then commits them in order. Where one
// cannot be prepared, or ctx ends before all are, that one and those before it are
// undone in reverse, and everything is as it was but for what the error says.
func transact(ctx context.Context, steps []step) error {
	for i, s := range steps {
		if s.prepare == nil {
			continue
		}
		err := s.prepare(ctx)
		if ctx.Err() != nil {
			err = errors.Join(context.Cause(ctx), err)
		}
		if err != nil {
			return errors.Join(err, undo(context.WithoutCancel(ctx), steps[:i+1]))
		}
	}
	for _, s := range steps {
		if s.commit != nil {
			s.commit()
		}
	}
	return nil
}

func undo(ctx context.Context, steps []step) error {
	var errs []error
	for i := len(steps) - 1; i >= 0; i-- {
		if steps[i].undo != nil {
			errs = append(errs, steps[i].undo(ctx))
		}
	}
	return errors.Join(errs...)
}
