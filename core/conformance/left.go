package conformance

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/tunneld/tunneld/core/conformance/internal/poll"
	"github.com/tunneld/tunneld/core/conformance/internal/proc"
)

// settled returns what the main instance has open once that does not change any
// more; nil where it cannot be looked at, which the report then says.
func (r *run) settled(ctx context.Context) map[string]string {
	if !proc.Supported {
		return nil
	}
	var last map[string]string
	same := 0
	var err error
	poll.Until(ctx, r.opts.Timeout, func() bool {
		var now map[string]string
		if now, err = proc.Descriptors(r.main.PID()); err != nil {
			return false
		}
		if last != nil && maps.Equal(last, now) {
			same++
		} else {
			same = 0
		}
		last = now
		return same >= 5
	})
	if last == nil {
		r.unseen = err
	}
	return last
}

// grown waits until the main instance has fewer than limit descriptors more than
// before, and says what there are where it does not come to that.
func (r *run) grown(ctx context.Context, before map[string]string, limit int) string {
	if before == nil {
		return ""
	}
	var now map[string]string
	fine := poll.Until(ctx, r.opts.Timeout, func() bool {
		open, err := proc.Descriptors(r.main.PID())
		now = open
		return err == nil && len(open)-len(before) < limit
	})
	if fine {
		return ""
	}
	kinds := map[string]int{}
	for _, link := range now {
		kind, _, _ := strings.Cut(link, ":")
		kinds[kind]++
	}
	for _, link := range before {
		kind, _, _ := strings.Cut(link, ":")
		kinds[kind]--
	}
	var list []string
	for _, kind := range slices.Sorted(maps.Keys(kinds)) {
		if kinds[kind] > 0 {
			list = append(list, fmt.Sprintf("%d more of %s", kinds[kind], kind))
		}
	}
	return fmt.Sprintf("%d descriptors are open, and %d were before: %s", len(now), len(before), strings.Join(list, ", "))
}

// descriptors makes many tunnels and ends them, and looks what stays. Before it
// came the same at once, so that pools and caches are filled.
func (r *run) descriptors(ctx context.Context) outcome {
	if !proc.Supported {
		return skip("the descriptors of another process cannot be inspected on this system")
	}
	const dials = 32
	before := r.settled(ctx)
	if before == nil {
		return skip("the plugin's descriptors cannot be inspected: %v", r.unseen)
	}
	if wrong := r.many(ctx, dials); wrong != nil {
		return fail("%v", wrong)
	}
	if grown := r.grown(ctx, before, dials/4); grown != "" {
		return fail("%s after the last of %d tunnels ended: %s", r.opts.Timeout, dials, grown)
	}
	return pass("%d tunnels made and ended, half of them broken off", dials)
}

// many makes tunnels a few at a time and ends them, one cleanly, one not.
func (r *run) many(ctx context.Context, count int) error {
	var all sync.WaitGroup
	slots := make(chan struct{}, 8)
	errs := make(chan error, count)
	for n := range count {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			c, err := r.tunnel(ctx, r.main)
			if err != nil {
				errs <- err
				return
			}
			defer c.drop()
			if err := carries(c, "a tunnel"); err != nil {
				errs <- err
				return
			}
			if n%2 == 0 && !r.main.Info().GetNoHalfClose() && !r.lacks(LackHalfClose) {
				if err := c.closeWrite(); err != nil {
					errs <- err
					return
				}
				// How it ends is for other checks.
				_, _ = c.rest()
			}
		})
	}
	all.Wait()
	select {
	case err := <-errs:
		return err
	default:
		return nil
	}
}

func (r *run) channel(context.Context) outcome {
	return fails(r.records, "")
}

func (r *run) processes(context.Context) outcome {
	if !proc.Supported {
		return skip("processes cannot be inspected on this system")
	}
	var list []string
	for _, p := range r.left {
		list = append(list, p.String()+" was started by the plugin and outlived it")
	}
	return fails(list, "")
}

func (r *run) secrets(context.Context) outcome {
	found, known, texts := r.said.Found()
	switch {
	case known > 0:
	case len(r.unsought) > 0:
		return skip("no sensitive value of the configuration is long enough to look for: give longer ones")
	default:
		return skip("the configuration sets no sensitive attribute")
	}
	return fails(found, "%d values looked for in %d texts: log, answers, errors", known, texts)
}
