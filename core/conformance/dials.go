package conformance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tunneld/tunneld/core/conformance/internal/farend"
	"github.com/tunneld/tunneld/core/conformance/internal/proc"
	"github.com/tunneld/tunneld/core/internal/tunnel"
	"github.com/tunneld/tunneld/internal/pluginwire"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// promptly is what a call that was cancelled has to return.
const promptly = 2 * time.Second

func (r *run) dial(ctx context.Context) outcome {
	// A far end that has just been started may need a while.
	patience := time.Now()
	if r.farEnd != nil {
		patience = patience.Add(3 * r.opts.Timeout)
	}
	for {
		begun := time.Now()
		c, err := r.tunnel(ctx, r.main)
		ended := r.farEnd.Ended()
		if err == nil && ended != "" {
			c.drop()
			return outcome{result: Fail, detail: "the target is reached, but not through the far end that was started: " + ended, fix: farEndFix}
		}
		if err == nil {
			r.took = time.Since(begun)
			r.relay, r.remote = c.Relay != nil, c.Remote
			r.level = levelDialed
			c.drop()
			return pass("%s, over the %s path%s", r.took.Round(10*time.Microsecond), c.Path.Text(), stagesText(c.Stages))
		}
		if ended != "" || ctx.Err() != nil || !time.Now().Before(patience) {
			return fail("%s", strings.TrimSpace(err.Error()+"\n"+ended))
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

func stagesText(stages []tunnel.StageTime) string {
	var parts []string
	for _, s := range stages {
		parts = append(parts, s.Stage.Text()+" "+s.Duration.Round(10*time.Microsecond).String())
	}
	if len(parts) == 0 {
		return ""
	}
	return " (" + strings.Join(parts, ", ") + ")"
}

func (r *run) echo(ctx context.Context) outcome {
	c, err := r.tunnel(ctx, r.main)
	if err != nil {
		return fail("%v", err)
	}
	defer c.drop()
	// Every byte value, forwards and backwards, and sizes about buffers' edges.
	all := make([]byte, 512)
	for i := range 256 {
		all[i], all[511-i] = byte(i), byte(i)
	}
	all[0] = 0xff // a zero is how the kit's own begins
	for _, n := range []int{512, 1, 2, 4095, 4096, 4097, 65535, 65536, 65537} {
		b := make([]byte, 0, n)
		for len(b) < n {
			b = append(b, all[:min(len(all), n-len(b))]...)
		}
		if err := c.ask(b); err != nil {
			return fail("%d bytes: %v", n, err)
		}
	}
	return pass("every byte value, and writes of 1 to 65537 bytes")
}

func (r *run) greeting(ctx context.Context) outcome {
	greeting := []byte("220 the target speaks first\r\n" + strings.Repeat("0123456789abcdef", 1024))
	r.target.Greet(greeting)
	defer r.target.Greet(nil)
	for range 8 {
		c, err := r.tunnel(ctx, r.main)
		if err != nil {
			return fail("%v", err)
		}
		c.wait = r.patience(pluginwire.NoGreeting)
		got := make([]byte, len(greeting))
		err = c.read(got)
		c.drop()
		if err != nil {
			return fail("the greeting did not arrive: %v", err)
		}
		if at := differ(got, greeting); at >= 0 {
			return fail("byte %d of the greeting is %#02x, and was sent as %#02x", at, got[at], greeting[at])
		}
	}
	return pass("%d bytes, eight times", len(greeting))
}

func (r *run) refuse(ctx context.Context) outcome {
	var target tunnel.Target
	switch {
	case r.opts.NoRefused:
		return skip("the upstream always leads to the same target, by --no-refused")
	case r.refusing != nil:
		target = *r.refusing
	default:
		return skip("no target that refuses was given (--refused)")
	}
	one, cancel := context.WithTimeout(ctx, r.opts.Timeout)
	defer cancel()
	begun := time.Now()
	answer, err := r.main.dialRaw(one, &pluginv1.DialRequest{
		Generation: firstGeneration, Upstream: r.upstream.Name,
		Target:        &pluginv1.Target{Host: target.Host, Port: uint32(target.Port)},
		AcceptedPaths: bothPaths,
	})
	took := time.Since(begun).Round(time.Millisecond)
	switch {
	case one.Err() != nil:
		return fail("no answer about %s within %s", target, r.opts.Timeout)
	case err != nil:
		return fail("the answer about %s is a failure of the plugin, not a DialError: %v", target, err)
	case answer.GetError() == nil && r.cannot(pluginwire.NoTargetAnswer):
		return r.refusedLater(one, target)
	case answer.GetError() == nil:
		return fail("the dial to %s, where nothing listens, succeeds", target)
	}
	e := answer.GetError()
	wrong := insane(e)
	if len(wrong) > 0 {
		wrong = append(wrong, strings.TrimSpace("the answer says: "+e.GetMessage()+"\n"+e.GetHint()))
	} else {
		wrong = r.refusals(ctx, target)
	}
	return fails(wrong, "%s: %s, %s: %s, retryable %t, after %s", target, e.GetStage().Text(), e.GetReason().Text(), e.GetMessage(), e.GetRetryable(), took)
}

// refusals dials a target that refuses often, and says what stays open. A few at
// a time, so that a pool of connections is no leak.
func (r *run) refusals(ctx context.Context, target tunnel.Target) []string {
	const dials = 16
	before := r.settled(ctx)
	var all sync.WaitGroup
	slots := make(chan struct{}, 4)
	for range dials {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			one, cancel := context.WithTimeout(ctx, r.opts.Timeout)
			defer cancel()
			if c, err := r.stream(one, r.main, firstGeneration, target); err == nil {
				(&client{Conn: c}).drop()
			}
		})
	}
	all.Wait()
	if grown := r.grown(ctx, before, dials/2); grown != "" {
		return []string{fmt.Sprintf("after %d refused dials: %s", dials, grown)}
	}
	return nil
}

// refusedLater wants the tunnel to a target that refuses to end, where the
// protocol does not tell it earlier.
func (r *run) refusedLater(ctx context.Context, target tunnel.Target) outcome {
	c, err := r.dial1(ctx, r.main, firstGeneration, target)
	if err != nil {
		return fail("the dial to %s, where nothing listens, succeeds at times, and at others: %v", target, err)
	}
	defer c.drop()
	// The write may meet the end already.
	_ = c.write([]byte("is anybody there?"))
	if got, err := c.rest(); isTimeout(err) {
		return fail("the tunnel to %s, where nothing listens, has not ended after %s", target, r.opts.Timeout)
	} else if len(got) > 0 {
		return fail("the tunnel to %s, where nothing listens, brings %d bytes", target, len(got))
	}
	return declare("the tunnel to %s ends soon; the plugin says that its protocol does not tell before (%s)", target, pluginwire.NoTargetAnswer)
}

// bothPaths are the data paths that the daemon takes.
var bothPaths = []pluginv1.DataPath{pluginv1.DataPath_DATA_PATH_DIRECT, pluginv1.DataPath_DATA_PATH_RELAY}

// insane says what is wrong with the error about a target that refused.
func insane(e *pluginv1.DialError) []string {
	var wrong []string
	if _, known := pluginv1.Stage_name[int32(e.GetStage())]; !known || e.GetStage() == pluginv1.Stage_STAGE_UNSPECIFIED || e.GetStage() == pluginv1.Stage_STAGE_PLUGIN {
		wrong = append(wrong, fmt.Sprintf("there is no stage %d", e.GetStage()))
	}
	fitting := []pluginv1.Reason{
		pluginv1.Reason_REASON_REFUSED, pluginv1.Reason_REASON_UNREACHABLE, pluginv1.Reason_REASON_UNAVAILABLE,
		pluginv1.Reason_REASON_NOT_FOUND, pluginv1.Reason_REASON_DENIED, pluginv1.Reason_REASON_TIMEOUT,
	}
	if !slices.Contains(fitting, e.GetReason()) {
		wrong = append(wrong, fmt.Sprintf("reason %s does not fit a target that refused", e.GetReason().Text()))
	}
	switch strings.TrimSpace(e.GetMessage()) {
	case "":
		wrong = append(wrong, "no message")
	case e.GetReason().Text():
		wrong = append(wrong, "the message is only the reason's name: say what the far end answered")
	}
	if wait := e.GetRetryAfter(); wait != nil && (wait.AsDuration() < 0 || !e.GetRetryable()) {
		wrong = append(wrong, "retry_after without retryable, or negative")
	}
	return wrong
}

func (r *run) cancel(ctx context.Context) outcome {
	const dials = 16
	before := r.settled(ctx)
	slow, wrong := r.cancelWaiting(ctx, dials)
	if wrong != "" {
		return fail("%s", wrong)
	}
	// And at moments spread over what a dial takes.
	var late []string
	for n := range dials {
		cut, cancel := context.WithTimeout(ctx, r.took*time.Duration(n)*3/(2*dials))
		begun := time.Now()
		c, err := r.stream(cut, r.main, firstGeneration, r.dest)
		took := time.Since(begun)
		cancel()
		if err == nil {
			(&client{Conn: c}).drop()
		} else if took > promptly {
			late = append(late, fmt.Sprintf("a dial that was cancelled returned after %s", took.Round(time.Millisecond)))
		}
	}
	if len(late) > 0 {
		return fails(late, "")
	}
	if r.target != nil {
		if open := r.target.Quiet(ctx, r.opts.Timeout); open > 0 {
			return fail("%d connections to the target are open %s after the last dial", open, r.opts.Timeout)
		}
	}
	if grown := r.grown(ctx, before, dials/2); grown != "" {
		return fail("after %d cancelled dials: %s", dials, grown)
	}
	return pass("%d at different moments%s", dials, slow)
}

// cancelWaiting cancels dials that wait for a target which does not answer, if
// there can be one.
func (r *run) cancelWaiting(ctx context.Context, dials int) (note, wrong string) {
	if r.target == nil {
		return "", ""
	}
	s, err := farend.Unanswering(ctx, r.target.IP())
	if err != nil || s == nil {
		return "", ""
	}
	defer s.Close()
	before := r.settled(ctx)
	waiting, cancel := context.WithCancel(ctx)
	defer cancel()
	var all sync.WaitGroup
	ended := make(chan error, dials)
	for range dials {
		all.Go(func() {
			c, err := r.stream(waiting, r.main, firstGeneration, s.Target)
			if err == nil {
				(&client{Conn: c}).drop()
				err = errSucceeded
			}
			ended <- err
		})
	}
	select {
	case <-ended:
		cancel()
		all.Wait()
		return "; the far end does not let a dial wait", ""
	case <-time.After(300 * time.Millisecond):
	}
	cancel()
	begun := time.Now()
	all.Wait()
	if took := time.Since(begun); took > promptly {
		return "", fmt.Sprintf("dials that waited for their target returned %s after they were cancelled", took.Round(time.Millisecond))
	}
	if grown := r.grown(ctx, before, dials/2); grown != "" {
		return "", fmt.Sprintf("%s after %d dials that waited for their target were cancelled: %s", r.opts.Timeout, dials, grown)
	}
	return fmt.Sprintf(", %d while they waited for their target", dials), ""
}

var errSucceeded = errors.New("it succeeded")

func (r *run) pure(ctx context.Context) outcome {
	// A dial that was cancelled before may still arrive somewhere: what the calls
	// do, they do each time.
	wrong := ""
	for range 3 {
		if wrong = r.impure(ctx); wrong == "" {
			return pass("ten calls")
		}
	}
	return fail("%s", wrong)
}

// impure says what ten calls of ValidateConfig did besides.
func (r *run) impure(ctx context.Context) string {
	before := r.settled(ctx)
	accepted := 0
	if r.target != nil {
		accepted, _ = r.target.Counts()
	}
	known := proc.Connections(r.remote)
	const times = 10
	for range times {
		if _, err := r.ask(ctx, r.upstream.JSON); err != nil {
			return err.Error()
		}
	}
	dialed := 0
	for c := range proc.Connections(r.remote) {
		if !known[c] {
			dialed++
		}
	}
	if r.target != nil {
		if now, _ := r.target.Counts(); now > accepted {
			return fmt.Sprintf("the target was connected to %d times", now-accepted)
		}
	}
	if dialed > 0 {
		return fmt.Sprintf("%s was connected to %d times", r.remote, dialed)
	}
	if grown := r.grown(ctx, before, times/2); grown != "" {
		return fmt.Sprintf("after %d calls: %s", times, grown)
	}
	return ""
}
