package conformance

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/tunneld/tunneld/core/conformance/internal/poll"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// What tunnels and dials share with each other, with their upstream and with the
// far end, and must not end with it.

// firstDials cancels the first of several dials of a fresh process: what it has
// begun for all of them, such as a login, has to go on.
func (r *run) firstDials(ctx context.Context) outcome {
	const rounds = 4
	for n := range rounds {
		if err := r.cancelFirst(ctx, r.took*time.Duration(n+1)/(rounds+1)); err != nil {
			return fail("%v", err)
		}
	}
	if r.farEnd == nil {
		return pass("at moments spread over a dial's time")
	}
	// While the far end stands still, whatever the first dial has begun is under
	// way.
	r.farEnd.Pause()
	defer r.farEnd.Resume()
	if err := r.cancelFirst(ctx, 200*time.Millisecond); err != nil {
		return fail("%v", err)
	}
	return pass("at moments spread over a dial's time, and while the far end stood still")
}

// cancelFirst cancels the first dial of a fresh process after a while. It resumes
// the far end then.
func (r *run) cancelFirst(ctx context.Context, after time.Duration) error {
	const others = 3
	i, err := r.another(ctx)
	if err != nil {
		return err
	}
	defer r.retire(i)
	dial := func(ctx context.Context) <-chan error {
		ended := make(chan error, 1)
		go func() {
			c, err := r.dial1(ctx, i, firstGeneration, r.dest)
			if err == nil {
				c.drop()
			}
			ended <- err
		}()
		return ended
	}
	first, cancel := context.WithCancel(ctx)
	defer cancel()
	cancelled := dial(first)
	time.Sleep(after / 2) // so that it is the first
	var rest [others]<-chan error
	for n := range rest {
		rest[n] = dial(ctx)
	}
	time.Sleep(after - after/2)
	cancel()
	<-cancelled
	r.farEnd.Resume()
	var errs []error
	for _, ended := range rest {
		errs = append(errs, <-ended)
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("the first dial of a fresh process was cancelled after %s, and others fail: %w", after.Round(10*time.Microsecond), err)
	}
	return nil
}

// release takes the upstream away from under open tunnels: first because its
// values have changed, then because no generation is left.
func (r *run) release(ctx context.Context, i *instance) outcome {
	first, err := r.tunnel(ctx, i)
	if err != nil {
		return fail("%v", err)
	}
	defer first.drop()
	changed := proto.Clone(r.up).(*pluginv1.Upstream)
	changed.ConfigHash += "-changed"
	if err := configureWith(ctx, i, secondGeneration, changed); err != nil {
		return fail("generation 2, with another hash: %v", err)
	}
	second, err := r.dial1(ctx, i, secondGeneration, r.dest)
	if err != nil {
		return fail("dial under generation 2, whose upstream has another hash: %v", err)
	}
	defer second.drop()
	if err := i.release(ctx, firstGeneration); err != nil {
		return fail("release generation 1: %v", err)
	}
	if err := live(ctx, first, "the tunnel of an upstream that another hash has replaced"); err != nil {
		return fail("%v", err)
	}
	if err := i.release(ctx, secondGeneration); err != nil {
		return fail("release generation 2: %v", err)
	}
	if err := live(ctx, second, "the tunnel of an upstream that no generation has any more"); err != nil {
		return fail("%v", err)
	}
	if err := live(ctx, first, "the tunnel of an upstream that was replaced before"); err != nil {
		return fail("%v", err)
	}
	return pass("")
}

// live wants a tunnel to carry bytes for a while: an upstream is closed some time
// after the call that released it.
func live(ctx context.Context, c *client, what string) error {
	var err error
	poll.Until(ctx, 500*time.Millisecond, func() bool {
		err = carries(c, what)
		return err != nil
	})
	return err
}

// farEndDeath kills the far end under two downloads: one that waits for more,
// and one in full flow.
func (r *run) farEndDeath(ctx context.Context, i *instance) outcome {
	waiting, target, err := r.pair(ctx, i)
	if err != nil {
		return fail("%v", err)
	}
	defer r.target.Drop(target)
	defer waiting.drop()
	_, err = target.Write(answer)
	if err == nil {
		err = waiting.read(make([]byte, len(answer)))
	}
	if err != nil {
		return fail("what the target said: %v", err)
	}
	flowing, source, err := r.pair(ctx, i)
	if err != nil {
		return fail("%v", err)
	}
	defer flowing.drop()
	fed := make(chan struct{})
	go func() {
		defer close(fed)
		for err := error(nil); err == nil; {
			_, err = source.Write(answer)
		}
	}()
	defer func() { r.target.Drop(source); <-fed }()
	if err := flowing.read(make([]byte, 16*len(answer))); err != nil {
		return fail("a download: %v", err)
	}
	r.farEnd.Kill()
	for what, c := range map[string]*client{"that waits for more": waiting, "in full flow": flowing} {
		if o := r.cutDownload(ctx, i, c); o.result != Pass {
			o.detail = "a download " + what + ": " + o.detail
			return o
		}
	}
	if !r.relay {
		return pass("by the connection itself")
	}
	return pass("the client sees an error")
}

func (r *run) cutDownload(ctx context.Context, i *instance, c *client) outcome {
	_ = c.Stream.SetReadDeadline(time.Now().Add(r.opts.Timeout))
	_, err := io.Copy(io.Discard, c.in)
	switch {
	case isTimeout(err):
		if again, err := r.tunnel(ctx, i); err == nil {
			again.drop()
			return skip("the far end goes on, though its command was killed")
		}
		return fail("the far end was killed, and the client sees no end at all within %s", r.opts.Timeout)
	case err != nil, !r.relay:
		return pass("")
	}
	return r.uncleanForClient(ctx, c)
}
