package azrelay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/tunneld/tunneld/plugins/azrelay/internal/bridge"
	"github.com/tunneld/tunneld/plugins/azrelay/internal/sas"
	"github.com/tunneld/tunneld/plugins/azrelay/internal/wsstream"
	"github.com/tunneld/tunneld/plugins/sdk"
)

// maxReason bounds a peer's text in an error, in bytes.
const maxReason = 512

// failure is an error of the connection, in the words that all plugins use.
func failure(stage sdk.Stage, err error, message string) *sdk.DialError {
	e := sdk.NetworkError(stage, err)
	e.Message = message + ": " + e.Message
	return e
}

func tlsFailure(ctx context.Context, err error, address string) *sdk.DialError {
	return failure(sdk.StageTLS, outer(ctx, err), "tls handshake with "+address)
}

// handshakeFailure is why the WebSocket did not come about.
func (c *Config) handshakeFailure(ctx context.Context, s *settings, err error, token string) *sdk.DialError {
	var refused *wsstream.RefusedError
	if errors.As(err, &refused) {
		e := c.refusal(s, refused, token)
		if e.Reason == sdk.ReasonUnauthenticated {
			c.token.drop(token)
		}
		return e
	}
	e := failure(sdk.StageHandshake, outer(ctx, err), "websocket handshake with "+s.address)
	var broken net.Error
	switch {
	case e.Reason == sdk.ReasonTimeout:
		e.Hint = "no listener has accepted: check that it runs and is not overloaded"
	case e.Reason == sdk.ReasonUnavailable && !errors.As(err, &broken):
		e.Reason, e.Retryable = sdk.ReasonProtocol, false
		e.Hint = "the server there does not speak WebSocket: check namespace, endpoint and what is in between"
	}
	return e
}

// refusal reads the service's status and reason. The service says in the status
// line's text what is wrong, and adds a TrackingId that its support asks for.
func (c *Config) refusal(s *settings, r *wsstream.RefusedError, token string) *sdk.DialError {
	text := c.quote(r.Reason, token)
	e := sdk.HTTPRefusal(sdk.StageHandshake, r.Status, r.Header)
	e.Message, e.Err = fmt.Sprintf("the service answered %d %s", r.Status, text), r
	lower := strings.ToLower(text)
	switch {
	case r.Status == http.StatusUnauthorized:
		e.Hint = unauthorizedHint(s, lower, c.TokenIn, r.Header, c.token.clock())
	case r.Status == http.StatusProxyAuthRequired:
		e.Hint = "a proxy in front of the service wants a login: set its address, user and password in via"
	case r.Status == http.StatusForbidden:
		e.Hint = "the policy lacks the Send right: add it, or use a key of another policy"
	case r.Status == http.StatusNotFound && strings.Contains(lower, "listener"):
		e.Reason, e.Retryable, e.Hint = sdk.ReasonUnavailable, true, "no listener is connected: start the one for this hybrid connection"
	case r.Status == http.StatusNotFound && strings.Contains(lower, "endpoint does not exist"):
		e.Hint = fmt.Sprintf("check the path %q and the namespace %q", s.path, s.namespace)
	case r.Status == http.StatusNotFound:
		e.Retryable, e.Hint = true, fmt.Sprintf("check the path %q, and that a listener is connected", s.path)
	case r.Status == http.StatusRequestTimeout, r.Status == http.StatusGatewayTimeout:
		e.Hint = "no listener has accepted in time: check that it runs and is not overloaded"
	case r.Status == http.StatusTooManyRequests:
		e.Hint = "the namespace is throttled: lower the rate, or check its quotas"
	case r.Status/100 == 5:
	case r.Status/100 == 4:
		e.Reason, e.Hint = sdk.ReasonDenied, "the listener, or a gateway in between, rejected the connection"
	default:
		e.Hint = "the server there is not a relay: check namespace and endpoint"
	}
	if !e.Retryable {
		e.RetryAfter = 0
	}
	return e
}

// unauthorizedHint tells apart what a 401 may mean.
func unauthorizedHint(s *settings, text, tokenIn string, h http.Header, now time.Time) string {
	skew := clockSkew(h, now)
	anonymous := s.token.IsZero() && s.key.IsZero()
	inHeader := !anonymous && tokenIn == InHeader
	switch {
	case inHeader && strings.Contains(text, "missingtoken"):
		return `the service has seen no token: a gateway in between drops the header ServiceBusAuthorization; set token_in = "query"`
	case strings.Contains(text, "audience"):
		return fmt.Sprintf("the token is for another address: it must be for %s", s.audience())
	case strings.Contains(text, "expired") && !s.token.IsZero():
		return "the ready-made token has expired: set a new one, or key_name and key"
	case skew > 0:
		return fmt.Sprintf("this machine's clock is %s behind the service's: set it", skew)
	case skew < 0:
		return fmt.Sprintf("this machine's clock is %s ahead of the service's: set it", -skew)
	case strings.Contains(text, "expired"):
		return "check this machine's clock: the token was made just now"
	case strings.Contains(text, "signature") && s.token.IsZero():
		return fmt.Sprintf("the key is not the one of policy %q: copy it whole, with the = at its end", s.keyName)
	}
	hint := "check the ready-made token"
	switch {
	case anonymous:
		hint = "the hybrid connection wants a token: set key_name and key"
	case s.token.IsZero():
		hint = fmt.Sprintf("check that policy %q exists, its key, and this machine's clock", s.keyName)
	}
	if strings.Contains(text, "trackingid") { // which each answer of the service has
		return hint
	}
	if inHeader {
		hint += `; if a gateway in between drops the header ServiceBusAuthorization, set token_in = "query"`
	}
	return hint + "; if a proxy in front wants a login, set its address, user and password in via"
}

// bridgeFailure is why azbridge did not take the port.
func (c *Config) bridgeFailure(ctx context.Context, err error, port string) *sdk.DialError {
	e := &sdk.DialError{Stage: sdk.StageRequest, Reason: sdk.ReasonProtocol, Message: err.Error(), Err: err}
	var closed *wsstream.CloseError
	switch {
	case errors.Is(err, bridge.ErrName):
		e.Reason = sdk.ReasonNotFound
		e.Hint = fmt.Sprintf("check that azbridge forwards a port named %q, or set port_name", port)
	case errors.Is(err, bridge.ErrVersion):
		e.Hint = "check that azbridge is of a version with preamble 1.0"
	case errors.Is(err, bridge.ErrNotStream):
		e.Hint = fmt.Sprintf("azbridge forwards port %q as UDP: set port_name to a port that it forwards as TCP", port)
	case errors.Is(err, bridge.ErrNotDatagrams):
		e.Hint = "tunneld asked for a stream: check what is between it and azbridge"
	case errors.As(err, &closed):
		e.Reason, e.Retryable = sdk.ReasonUnavailable, closed.Code != wsstream.CodeGone
	case ctx.Err() != nil, errors.Is(err, context.DeadlineExceeded), errors.Is(err, wsstream.ErrNoClose):
		e = failure(sdk.StageRequest, outer(ctx, err), "wait for azbridge's answer")
		e.Hint = `check that the listener is azbridge: a plain one needs framing = "raw"`
	default:
		e.Hint = `check that the listener is azbridge: a plain one needs framing = "raw"`
	}
	return e
}

// outer prefers the end of the dial itself over what it looked like in a part
// of it.
func outer(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// quote makes a peer's text fit for a log line, without what the peer was sent in
// confidence, as far as it repeats that.
func (c *Config) quote(s, token string) string {
	secrets := append(sdk.HeaderSecrets(c.Headers), token)
	return sdk.Excerpt(sas.Redact(sdk.Redact(s, secrets...)), maxReason)
}
