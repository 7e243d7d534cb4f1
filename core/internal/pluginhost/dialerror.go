package pluginhost

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tunneld/tunneld/core/internal/tunnel"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// Bounds on what a plugin can make of a failed dial.
const (
	maxStages     = 16
	maxRetryAfter = 24 * time.Hour
)

// Hints for failures that are not the far end's.
const (
	pluginHint  = "this is a fault of the plugin, not of the far end: see its lines in the log"
	timeoutHint = "see the listener's dial timeout, and what the plugin was waiting for"
	refusedHint = "fix what it complains about: it is asked again until it accepts the configuration; or change the configuration and reload"
)

// Hints for connections that were made and did not get here.
const (
	limitHint = "if the daemon is out of descriptors, raise its limit (ulimit -n, LimitNOFILE) or lower daemon.max_connections; otherwise it is a fault of the plugin"
	goneHint  = "the far end broke off the connection right after the handshake: see its log"
)

// upstreamName is what a dial's errors call the upstream.
type upstreamName struct{ plugin, name string }

// fromPlugin is a failure that the plugin reports of the far end.
func (u upstreamName) fromPlugin(e *pluginv1.DialError) error {
	message := cmp.Or(e.GetMessage(), "the plugin gives no reason")
	stage, reason := e.GetStage(), e.GetReason()
	if _, known := pluginv1.Stage_name[int32(stage)]; !known || stage == pluginv1.Stage_STAGE_PLUGIN {
		stage = pluginv1.Stage_STAGE_UNSPECIFIED
	}
	if _, known := pluginv1.Reason_name[int32(reason)]; !known || reason == pluginv1.Reason_REASON_UNSPECIFIED {
		reason = pluginv1.Reason_REASON_UNAVAILABLE
	}
	return &tunnel.DialError{
		Upstream:   u.id(),
		Stage:      stage,
		Reason:     reason,
		Retryable:  e.GetRetryable(),
		Message:    message,
		Hint:       e.GetHint(),
		RetryAfter: min(max(e.GetRetryAfter().AsDuration(), 0), maxRetryAfter),
		Stages:     stages(e.GetStages()),
	}
}

// fromCall is a dial that was not answered.
func (u upstreamName) fromCall(callCtx, ctx context.Context, p *Process, err error) error {
	if errors.Is(context.Cause(callCtx), errNoAnswer) && ctx.Err() == nil {
		return u.broken(fmt.Sprintf("%v within %s", errNoAnswer, p.waits.handoff), errNoAnswer)
	}
	if ctx.Err() != nil {
		return u.fromContext(ctx, "the plugin did not answer in time")
	}
	switch status.Code(err) {
	case codes.DeadlineExceeded:
		return u.timeout("the plugin did not answer in time", callError(err))
	case codes.Canceled, codes.Unavailable:
		// Also what a call gets whose connection is closed because the process
		// has ended.
		if p.child.wait(noticeWait) {
			return u.unavailable(ctx, p.died())
		}
	}
	return u.unavailable(ctx, callError(err))
}

// fromContext is a dial that was given up.
func (u upstreamName) fromContext(ctx context.Context, while string) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return u.timeout(while, ctx.Err())
	}
	e := u.failure(pluginv1.Reason_REASON_CANCELED, "given up: "+while, "", ctx.Err())
	e.Retryable = false
	return e
}

func (u upstreamName) timeout(message string, err error) error {
	return u.failure(pluginv1.Reason_REASON_TIMEOUT, message, timeoutHint, err)
}

// unavailable is a plugin that cannot dial now.
func (u upstreamName) unavailable(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return u.fromContext(ctx, err.Error())
	}
	e := u.failure(pluginv1.Reason_REASON_UNAVAILABLE, u.says(err.Error()), pluginHint, err)
	var down *downError
	if errors.As(err, &down) {
		e.Hint, e.RetryAfter = cmp.Or(down.hint, e.Hint), down.again
	}
	return e
}

// lost is a connection that was made and did not get here.
func (u upstreamName) lost(what, hint string, err error) error {
	return u.failure(pluginv1.Reason_REASON_UNAVAILABLE, u.says(what), hint, err)
}

// broken is a plugin that does not keep to the protocol. Another upstream may
// well do.
func (u upstreamName) broken(what string, err error) error {
	return u.failure(pluginv1.Reason_REASON_PROTOCOL, u.says(what), pluginHint, err)
}

// failure is the plugin's own, after which another upstream is worth a try.
func (u upstreamName) failure(r pluginv1.Reason, message, hint string, err error) *tunnel.DialError {
	return &tunnel.DialError{
		Upstream:  u.id(),
		Stage:     pluginv1.Stage_STAGE_PLUGIN,
		Reason:    r,
		Retryable: true,
		Message:   message,
		Hint:      hint,
		Err:       err,
	}
}

func (u upstreamName) says(what string) string { return fmt.Sprintf("plugin %q: %s", u.plugin, what) }

func (u upstreamName) id() string { return u.plugin + "." + u.name }

// stages converts what a plugin measured.
func stages(in []*pluginv1.StageTime) []tunnel.StageTime {
	var out []tunnel.StageTime
	for _, s := range in[:min(len(in), maxStages)] {
		out = append(out, tunnel.StageTime{Stage: s.GetStage(), Duration: max(s.GetDuration().AsDuration(), 0)})
	}
	return out
}

// callError says what became of a call, without gRPC's own dress.
func callError(err error) error {
	s := status.Convert(err)
	switch s.Code() {
	case codes.DeadlineExceeded:
		return fmt.Errorf("no answer in time: %w", context.DeadlineExceeded)
	case codes.Canceled:
		return context.Canceled
	}
	return fmt.Errorf("%s (%s)", s.Message(), s.Code())
}
