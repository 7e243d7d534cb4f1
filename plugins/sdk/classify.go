package sdk

import (
	"cmp"
	"context"
	"errors"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tunneld/tunneld/internal/neterr"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// dialFailure turns what Dial returned into the error that travels. What the
// author's DialError leaves open is filled in: the stage by the one entered
// last, the reason by the cause.
func dialFailure(ctx context.Context, err error, last Stage) *pluginv1.DialError {
	ended := ending(ctx)
	overtime := errors.Is(ended, neterr.ErrOvertime)
	var d *DialError
	typed := errors.As(err, &d)
	if !typed {
		d = classify(last, err)
		switch {
		case ended == nil || d.Reason == ReasonCanceled:
		case d.Reason != ReasonTimeout:
			// A dial that is cut short often surfaces as something else: a
			// connection closed under a read, say.
			d = classify(last, ended)
		case overtime:
			d.Hint = classify(last, ended).Hint
		}
	}
	out := &pluginv1.DialError{
		Stage:     d.Stage,
		Reason:    d.Reason,
		Retryable: d.Retryable,
		Message:   d.Message,
		Hint:      d.Hint,
	}
	// A dialer looks names up within what an author takes for the connect; in
	// any other stage the name is part of that.
	if out.Stage == pluginv1.Stage_STAGE_UNSPECIFIED || !typed && last != StageConnect && last != pluginv1.Stage_STAGE_UNSPECIFIED {
		out.Stage = last
	}
	if out.Reason == pluginv1.Reason_REASON_UNSPECIFIED {
		c := classify(out.Stage, d.Err)
		out.Reason, out.Retryable = c.Reason, out.Retryable || c.Retryable
	}
	if out.Message == "" {
		out.Message = out.Reason.Text()
	}
	if overtime && out.Reason == ReasonTimeout && !errors.Is(d.Err, neterr.ErrOvertime) {
		out.Message += " (" + ended.Error() + ")"
	}
	if d.RetryAfter > 0 {
		out.RetryAfter = durationpb.New(d.RetryAfter)
	}
	return out
}

// ending returns why ctx ended, or nil. A dialer takes the deadline from ctx and
// may notice it a moment before ctx does.
func ending(ctx context.Context) error {
	if deadline, ok := ctx.Deadline(); ok && !time.Now().Before(deadline) {
		<-ctx.Done()
	}
	return context.Cause(ctx)
}

// NetworkError is the failure that an error of Connect, or of the net, tls and
// context packages, means at a stage: reason, hint, whether another try may succeed,
// and the stage resolve where a name was not resolved. Message is the error's text,
// without the URL of an HTTP request: it may carry a token.
func NetworkError(stage Stage, err error) *DialError {
	d := classify(stage, err)
	d.Stage = cmp.Or(d.Stage, stage)
	return d
}

// classify finds the reason of an error at a stage that its author did not type.
func classify(stage Stage, err error) *DialError {
	if err == nil {
		return &DialError{Reason: ReasonUnavailable, Retryable: true}
	}
	m := neterr.ClassifyAt(stage, err)
	d := &DialError{Reason: m.Reason, Retryable: m.Retryable, Hint: m.Hint, Message: neterr.Message(err), Err: err}
	var explained *neterr.Explained
	if errors.As(err, &explained) {
		d.RetryAfter = explained.RetryAfter
	}
	if neterr.Resolving(err) {
		d.Stage = StageResolve
	}
	return d
}
