package sdk

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/tunneld/tunneld/internal/neterr"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// dialFailure turns what Dial returned into the error for the daemon. What the author's
// DialError leaves open is filled in: the stage by the one entered last, the reason by
// the cause.
func dialFailure(ctx context.Context, err error, last Stage) *DialError {
	ended := ending(ctx)
	overtime := errors.Is(ended, ErrOvertime)
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
	out := *d
	// A dialer looks names up within what an author takes for the connect; in
	// any other stage the name is part of that.
	if out.Stage == 0 || !typed && last != StageConnect && last != 0 {
		out.Stage = last
	}
	if out.Reason == 0 {
		c := classify(out.Stage, d.Err)
		out.Reason, out.Retryable = c.Reason, out.Retryable || c.Retryable
	}
	if out.Message == "" {
		out.Message = out.Reason.String()
	}
	if overtime && out.Reason == ReasonTimeout && !errors.Is(d.Err, ErrOvertime) {
		out.Message += " (" + ended.Error() + ")"
	}
	return &out
}

// ErrOvertime is the cause of Dial's context (context.Cause) where the time that the
// listener gives the dial is over. It wraps context.DeadlineExceeded.
var ErrOvertime = neterr.ErrOvertime

// ending returns why ctx ended, or nil. A dialer takes the deadline from ctx and
// may notice it a moment before ctx does.
func ending(ctx context.Context) error {
	if deadline, ok := ctx.Deadline(); ok && !time.Now().Before(deadline) {
		<-ctx.Done()
	}
	return context.Cause(ctx)
}

// NetworkError says what an error means that comes from Connect or from the packages net,
// crypto/tls, net/http or context: reason, hint and whether another try may succeed.
// Where a name was not resolved the stage is StageResolve, otherwise the given one. Of an
// error that it does not know the reason is ReasonUnavailable, retryable. Message is the
// error's text without the URL of an HTTP request, which may carry a token; Err is err.
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
	m := neterr.ClassifyAt(pluginv1.Stage(stage), err)
	d := &DialError{Reason: Reason(m.Reason), Retryable: m.Retryable, Hint: m.Hint, Message: neterr.Message(err), Err: err}
	var explained *neterr.Explained
	if errors.As(err, &explained) {
		d.RetryAfter = explained.RetryAfter
	}
	if neterr.Resolving(err) {
		d.Stage = StageResolve
	}
	return d
}
