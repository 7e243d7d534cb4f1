package conformance

import (
	"context"
	"errors"
	"fmt"
	"io"
	"syscall"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tunneld/tunneld/core/conformance/internal/proc"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// numbers of generations beside the first.
const (
	secondGeneration = 2
	brokenGeneration = 3
	absentGeneration = 99
)

func (r *run) status(ctx context.Context) outcome {
	ctx, cancel := context.WithTimeout(ctx, r.opts.Timeout)
	defer cancel()
	stream, err := r.main.Service().WatchStatus(ctx, &pluginv1.WatchStatusRequest{})
	if err != nil {
		return fail("%v", err)
	}
	first, err := stream.Recv()
	if err != nil {
		return fail("no first message: %v", err)
	}
	var wrong []string
	found := 0
	for _, u := range first.GetUpstreams() {
		switch {
		case u.GetName() != r.up.GetName() || u.GetConfigHash() != r.up.GetConfigHash():
			wrong = append(wrong, fmt.Sprintf("upstream %q is not configured with this hash", u.GetName()))
		default:
			found++
		}
	}
	if found != 1 {
		wrong = append(wrong, fmt.Sprintf("upstream %q appears %d times in the first message", r.up.GetName(), found))
	}
	if len(wrong) > 0 {
		return fails(wrong, "")
	}
	return pass("health %s", first.GetUpstreams()[0].GetHealth().Text())
}

// request is a dial of the target as the daemon sends it.
func (r *run) request(generation uint64) *pluginv1.DialRequest {
	return &pluginv1.DialRequest{
		Generation: generation, Upstream: r.upstream.Name,
		Target:        &pluginv1.Target{Host: r.dest.Host, Port: uint32(r.dest.Port)},
		SocketOptions: &pluginv1.SocketOptions{KeepaliveIdle: durationpb.New(0)},
		AcceptedPaths: bothPaths,
	}
}

// answers wants a dial to fail with a gRPC code.
func (r *run) answers(ctx context.Context, i *instance, req *pluginv1.DialRequest, want codes.Code) error {
	ctx, cancel := context.WithTimeout(ctx, r.opts.Timeout)
	defer cancel()
	got, err := i.dialRaw(ctx, req)
	switch {
	case err == nil && got.GetError() != nil:
		return fmt.Errorf("it answers with a DialError (%s), not %s", got.GetError().GetMessage(), want)
	case err == nil:
		return fmt.Errorf("it succeeds, and should be %s", want)
	case status.Code(err) != want:
		return fmt.Errorf("it is %s, and should be %s", status.Code(err), want)
	}
	return nil
}

func (r *run) generations(ctx context.Context, i *instance) outcome {
	service := i.Service()
	old, err := r.dial1(ctx, i, firstGeneration, r.dest)
	if err != nil {
		return fail("dial under generation 1: %v", err)
	}
	defer old.drop()
	if err := r.configure(ctx, i, secondGeneration); err != nil {
		return fail("generation 2 beside 1: %v", err)
	}
	_, err = service.Configure(ctx, &pluginv1.ConfigureRequest{Generation: secondGeneration, Upstreams: []*pluginv1.Upstream{r.up}})
	if status.Code(err) != codes.AlreadyExists {
		return fail("generation 2 once more: it is %s, and should be %s", status.Code(err), codes.AlreadyExists)
	}
	for _, g := range []uint64{firstGeneration, secondGeneration} {
		c, err := r.dial1(ctx, i, g, r.dest)
		if err != nil {
			return fail("dial under generation %d while there are two: %v", g, err)
		}
		err = carries(c, "a tunnel of one of two generations")
		c.drop()
		if err != nil {
			return fail("%v", err)
		}
	}
	if err := i.release(ctx, firstGeneration); err != nil {
		return fail("release generation 1: %v", err)
	}
	if err := r.answers(ctx, i, r.request(firstGeneration), codes.NotFound); err != nil {
		return fail("dial under generation 1 after its release: %v", err)
	}
	if err := carries(old, "the tunnel of the released generation"); err != nil {
		return fail("%v", err)
	}
	fresh, err := r.dial1(ctx, i, secondGeneration, r.dest)
	if err != nil {
		return fail("dial under generation 2 after the release of 1: %v", err)
	}
	defer fresh.drop()
	if err := carries(fresh, "a tunnel of the generation that is left"); err != nil {
		return fail("%v", err)
	}
	unknown := r.request(secondGeneration)
	unknown.Upstream = "kit_no_such_upstream"
	if err := r.answers(ctx, i, unknown, codes.NotFound); err != nil {
		return fail("dial through an upstream that generation 2 does not have: %v", err)
	}
	if _, err := service.Release(ctx, &pluginv1.ReleaseRequest{Generation: absentGeneration}); err != nil {
		return fail("release of a generation that does not exist: %v", err)
	}
	return pass("")
}

func (r *run) configureWhole(ctx context.Context) outcome {
	service := r.main.Service()
	name, values := "kit_broken", []byte(`{"kit_unknown_name":1}`)
	got, err := service.Configure(ctx, &pluginv1.ConfigureRequest{Generation: brokenGeneration, Upstreams: []*pluginv1.Upstream{
		r.up, r.upstreamWith(name, values),
	}})
	if err == nil && len(errorsIn(got.GetDiagnostics())) == 0 {
		return fail("an upstream with a name that the schema does not have is taken")
	}
	if err := r.answers(ctx, r.main, r.request(brokenGeneration), codes.NotFound); err != nil {
		return fail("dial under a generation that was refused: %v", err)
	}
	if _, err := service.Release(ctx, &pluginv1.ReleaseRequest{Generation: brokenGeneration}); err != nil {
		return fail("release of a generation that was refused: %v", err)
	}
	return pass("")
}

func (r *run) drain(ctx context.Context, i *instance) outcome {
	c, err := r.tunnel(ctx, i)
	if err != nil {
		return fail("%v", err)
	}
	defer c.drop()
	got, err := r.drainTooShort(ctx, i)
	want := uint32(0)
	if r.relay {
		want = 1
	}
	switch {
	case err != nil:
		return fail("with a tunnel open and too little time: %v", err)
	case got.GetRemaining() != want:
		return fail("with one %s tunnel open it says that %d are left, not %d", c.Path.Text(), got.GetRemaining(), want)
	}
	if err := r.answers(ctx, i, r.request(firstGeneration), codes.Unavailable); err != nil {
		return fail("dial after Drain: %v", err)
	}
	if err := carries(c, "the tunnel that was there before Drain"); err != nil {
		return fail("%v", err)
	}
	if !r.relay {
		return pass("")
	}
	return r.drained(ctx, i, c)
}

// drainTooShort asks for a drain that has too little time. What answers shortly
// before a deadline may be late on a busy machine, and in time for the next one.
func (r *run) drainTooShort(ctx context.Context, i *instance) (got *pluginv1.DrainResponse, err error) {
	for _, d := range []time.Duration{time.Second, 5 * time.Second, 5 * time.Second} {
		one, cancel := context.WithTimeout(ctx, d)
		got, err = i.Service().Drain(one, &pluginv1.DrainRequest{})
		cancel()
		if status.Code(err) != codes.DeadlineExceeded {
			break
		}
	}
	return got, err
}

// drained has Drain wait for a relay.
func (r *run) drained(ctx context.Context, i *instance, c *client) outcome {
	type result struct {
		got *pluginv1.DrainResponse
		err error
	}
	long, cancel := context.WithTimeout(ctx, r.opts.Timeout)
	defer cancel()
	returned := make(chan result, 1)
	go func() {
		got, err := i.Service().Drain(long, &pluginv1.DrainRequest{})
		returned <- result{got, err}
	}()
	defer func() { cancel(); c.drop() }()
	if err := carries(c, "the tunnel during Drain"); err != nil {
		return fail("%v", err)
	}
	select {
	case done := <-returned:
		return fail("Drain returns while a relay is open: %d left, %v", done.got.GetRemaining(), done.err)
	case <-time.After(50 * time.Millisecond):
	}
	c.drop()
	done := <-returned
	switch {
	case done.err != nil:
		return fail("Drain does not return within %s of the last relay's end: %v", r.opts.Timeout, done.err)
	case done.got.GetRemaining() != 0:
		return fail("the last relay has ended, and Drain says that %d are left", done.got.GetRemaining())
	}
	return pass("")
}

func (r *run) kill(ctx context.Context, i *instance) outcome {
	c, err := r.tunnel(ctx, i)
	if err != nil {
		return fail("%v", err)
	}
	defer c.drop()
	if err := carries(c, "the tunnel"); err != nil {
		return fail("%v", err)
	}
	i.Signal(syscall.SIGKILL)
	select {
	case <-i.Exited():
	case <-time.After(r.opts.Timeout):
		return fail("it is still running %s after SIGKILL", r.opts.Timeout)
	}
	if !r.relay {
		if err := carries(c, "the direct tunnel of the killed plugin"); err != nil {
			return fail("%v", err)
		}
		return pass("the direct tunnel goes on")
	}
	got, err := c.rest()
	switch {
	case err == nil:
		return fail("the client sees a clean end")
	case errors.Is(err, context.DeadlineExceeded), isTimeout(err):
		return fail("the client sees no end at all within %s", r.opts.Timeout)
	case len(got) > 0:
		return fail("the client reads %d bytes that nobody sent", len(got))
	}
	return pass("the client sees: %s", trimmed(err))
}

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout() && !errors.Is(err, io.EOF)
}

func (r *run) killTarget(ctx context.Context, i *instance) outcome {
	if !r.relay {
		return pass("a direct tunnel goes on")
	}
	return r.broken(ctx, i, func(*client) { i.Signal(syscall.SIGKILL) })
}

func (r *run) lifeline(ctx context.Context, i *instance) outcome {
	family := proc.Family(i.PID())
	watched := outcome{result: Pass}
	var took time.Duration
	ended := true
	hangUp := func() {
		begun := time.Now()
		i.Abandon()
		select {
		case <-i.Exited():
		case <-time.After(r.opts.hangUp):
			ended = false
		}
		took = time.Since(begun).Round(time.Millisecond)
	}
	if r.level >= levelDialed && r.relay && r.target != nil && !r.lacks(LackReset) {
		watched = r.broken(ctx, i, func(*client) { hangUp() })
	} else {
		hangUp()
	}
	r.leave(family)
	switch {
	case !ended:
		return fail("it is still running %s after the descriptor channel's end of file", r.opts.hangUp)
	case watched.result == Fail:
		return fail("it ended after %s, and %s", took, watched.detail)
	}
	return pass("after %s", took)
}

func (r *run) stop(ctx context.Context) outcome {
	if r.level >= levelDialed {
		c, err := r.tunnel(ctx, r.main)
		if err != nil {
			return fail("%v", err)
		}
		defer c.drop()
	}
	begun := time.Now()
	r.retire(r.main)
	if len(r.stops) > 0 {
		return fails(r.stops, "")
	}
	return pass("after %s", time.Since(begun).Round(time.Millisecond))
}
