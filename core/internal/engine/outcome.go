package engine

import (
	"cmp"
	"errors"
	"log/slog"
	"strings"
	"time"

	"github.com/tunneld/tunneld/core/internal/splice"
	"github.com/tunneld/tunneld/core/internal/tunnel"
	"github.com/tunneld/tunneld/internal/neterr"
	"github.com/tunneld/tunneld/internal/plaintext"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// refused returns, and logs, the error for a client beyond a limit.
func (c *connection) refused(cause *overLimit) *tunnel.DialError {
	err := &tunnel.DialError{
		Stage:      pluginv1.Stage_STAGE_CONNECT,
		Reason:     pluginv1.Reason_REASON_UNAVAILABLE,
		Message:    cause.Error(),
		Hint:       cmp.Or(cause.hint, "raise the limit, or find out who holds the connections"),
		RetryAfter: cause.retryAfter,
	}
	c.logFailure(err, cause.limit)
	return err
}

// failed counts and logs a connection that never became a tunnel.
func (c *connection) failed(err *tunnel.DialError) {
	c.engine.metrics.Failed(c.listener.id, c.route, c.upstream, err)
	c.logFailure(err, err.Reason.Text())
}

// logFailure logs why there is no tunnel. reason is what such lines are alike by.
func (c *connection) logFailure(err *tunnel.DialError, reason string) {
	c.engine.repeats.write(slog.LevelWarn, repeatKey{message: "connection failed", listener: c.listener.id, reason: reason}, func() []any {
		return append(append(c.attrs(), failureAttrs(err)...), "duration_ms", milliseconds(c.age()))
	})
}

// ended counts and logs a tunnel that has ended.
func (c *connection) ended(r splice.Result) {
	age := c.age()
	c.done(nil)
	c.closed(r)
	if !c.listener.access {
		return
	}
	attrs := append(c.attrs(), "path", c.path.Text())
	attrs = append(attrs, stageAttrs(c.stages)...)
	attrs = append(attrs,
		"bytes_up", r.Up,
		"bytes_down", r.Down,
		"duration_ms", milliseconds(age),
		"reason", string(r.Reason),
	)
	if r.Err != nil {
		attrs = append(attrs, "err", r.Err.Error())
	}
	c.engine.log.Info("connection", attrs...)
}

// closed counts a tunnel that has ended, and logs who is to blame for it.
func (c *connection) closed(r splice.Result) {
	c.counts.Ended(r.Reason, c.age())
	var held *splice.HeldUpError
	if errors.As(r.Err, &held) {
		c.engine.log.Warn("tunnel broken off", append(c.attrs(), "plugin", held.Plugin, "err", held,
			"hint", "other tunnels waited meanwhile: fix or replace the plugin. Until the daemon restarts, what it hands over is copied instead of spliced")...)
	}
	if r.Reason == tunnel.CloseUpstreamReset && neterr.RefusesCertificate(r.Err) {
		c.refusedLate(r.Err)
	}
}

// refusedLate logs that the upstream's server does not accept the client's certificate,
// which it says with TLS 1.3 when the client has been told that it is connected.
func (c *connection) refusedLate(err error) {
	m := neterr.Classify(err)
	c.logFailure(&tunnel.DialError{Stage: pluginv1.Stage_STAGE_TLS, Reason: m.Reason, Message: err.Error(), Hint: m.Hint}, m.Reason.Text())
}

// age is the time since the connection was accepted.
func (c *connection) age() time.Duration { return time.Since(c.engine.began) - c.start }

func (c *connection) attrs() []any {
	attrs := []any{
		"conn", c.name(),
		"listener", c.listener.id,
		"route", c.route,
		"upstream", c.upstream,
		"client", c.source.String(),
	}
	if c.user != "" {
		attrs = append(attrs, "user", shownUser(c.user))
	}
	return append(attrs, "target", c.target.Shown())
}

// maxUserShown bounds a user in messages, in bytes: it may be a URI of a certificate.
const maxUserShown = 255

// maxMethodShown bounds a request's method in messages, in bytes, and maxURLShown its URL.
const (
	maxMethodShown = 20
	maxURLShown    = 512
)

// shownUser is a user fit for messages. It is the user itself where that is short and can be
// read, so that a route can name it.
func shownUser(user string) string { return shownText(user, maxUserShown) }

// shownText is a text fit for messages that others have chosen.
func shownText(text string, most int) string {
	more := ""
	if len(text) > most {
		text, more = strings.ToValidUTF8(text[:most], ""), "…"
	}
	return plaintext.Shown(text) + more
}

func failureAttrs(err *tunnel.DialError) []any {
	attrs := []any{
		"stage", err.Stage.Text(),
		"reason", err.Reason.Text(),
		"err", err.Message,
	}
	if err.Hint != "" {
		attrs = append(attrs, "hint", err.Hint)
	}
	return append(attrs, stageAttrs(err.Stages)...)
}

func stageAttrs(stages []tunnel.StageTime) []any {
	if len(stages) == 0 {
		return nil
	}
	var times []any
	for _, s := range stages {
		times = append(times, slog.Float64(s.Stage.Text(), milliseconds(s.Duration)))
	}
	return []any{slog.Group("dial_ms", times...)}
}

func milliseconds(d time.Duration) float64 {
	return float64(d.Round(time.Microsecond)) / float64(time.Millisecond)
}
