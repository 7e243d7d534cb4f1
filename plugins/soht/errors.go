package soht

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/tunneld/tunneld/plugins/sdk"
)

// The ways in which a tunnel, or the answer that it hangs on, breaks. Each comes
// wrapped in an *Error.
var (
	// ErrStatus is an answer with another HTTP status than 200.
	ErrStatus = errors.New("refused by HTTP status")
	// ErrNotSOHT is an answer with status 200 that no SOHT server gives: a
	// login page, mostly.
	ErrNotSOHT = errors.New("answer is not from a SOHT server")
	// ErrCut is an answer whose end is missing.
	ErrCut = errors.New("answer is cut short")
	// ErrReset is a connection that the target reset.
	ErrReset = errors.New("connection reset by the target")
	// ErrUnknown is a connection that the server does not know, or not any
	// more.
	ErrUnknown = errors.New("server does not know the connection")
	// ErrExchange is a request without an answer.
	ErrExchange = errors.New("HTTP exchange failed")
)

// Error is why an action of the protocol failed. During a tunnel it ends that
// tunnel; of an open it becomes a *sdk.DialError.
type Error struct {
	// Action is the protocol's: "open", "read", "write", "readwrite", "close".
	Action string
	// Reason says what kind of failure it is.
	Reason sdk.Reason
	// Message says what happened; Hint what to check, or is empty. No secret
	// is in either.
	Message, Hint string
	// Status is the HTTP status where it was not 200, else 0.
	Status int
	// RetryAfter is what the answer asked for, or 0.
	RetryAfter time.Duration
	// Err is one of the errors of this package; Cause is what is behind it, or
	// nil.
	Err, Cause error
}

// Error returns "action: message (hint)".
func (e *Error) Error() string {
	if e.Hint == "" {
		return fmt.Sprintf("%s: %s", e.Action, e.Message)
	}
	return fmt.Sprintf("%s: %s (%s)", e.Action, e.Message, e.Hint)
}

// Unwrap returns Err, and Cause unless that is io.EOF, which callers of Read would
// take for a clean end.
func (e *Error) Unwrap() []error {
	if e.Cause == nil || errors.Is(e.Cause, io.EOF) {
		return []error{e.Err}
	}
	return []error{e.Err, e.Cause}
}

// dialError is e as the failure of an open at this host. A request without an
// answer failed at the stage that was entered last.
func (e *Error) dialError(host string, last sdk.Stage) *sdk.DialError {
	stage := sdk.StageRequest
	switch {
	case e.Err == ErrExchange && e.Cause != nil:
		stage = last
	}
	retryable := true
	switch e.Reason {
	case sdk.ReasonProtocol, sdk.ReasonUnauthenticated, sdk.ReasonDenied:
		retryable = false
	}
	return &sdk.DialError{
		Stage:      stage,
		Reason:     e.Reason,
		Retryable:  retryable,
		Message:    "open at " + host + ": " + e.Message,
		Hint:       e.Hint,
		RetryAfter: e.RetryAfter,
		Err:        e,
	}
}

// checkStatus returns an error for whatever is not 200. It does not read the
// body.
func (c *client) checkStatus(action string, r *http.Response) error {
	if r.StatusCode == http.StatusOK {
		if coding := r.Header.Get("Content-Encoding"); coding != "" && coding != "identity" {
			return &Error{
				Action: action, Reason: sdk.ReasonProtocol, Err: ErrNotSOHT,
				Message: "the answer is compressed, which was not requested",
				Hint:    "switch compression off in front of the SOHT server",
			}
		}
		return nil
	}
	m := sdk.HTTPRefusal(sdk.StageRequest, r.StatusCode, r.Header)
	e := &Error{
		Action:     action,
		Status:     r.StatusCode,
		Reason:     m.Reason,
		RetryAfter: m.RetryAfter,
		Message:    fmt.Sprintf("answered with HTTP status %d %s", r.StatusCode, http.StatusText(r.StatusCode)),
		Err:        ErrStatus,
	}
	if r.StatusCode == http.StatusMethodNotAllowed {
		e.Reason = sdk.ReasonNotFound // of a page that is no service
	}
	e.Hint = statusHint(action, r.StatusCode)
	if r.StatusCode/100 == 3 {
		e.Message += c.location(r)
	}
	return e
}

func statusHint(action string, status int) string {
	switch {
	case status/100 == 3:
		return "redirects are not followed: set url to the service itself, and check whether a gateway wants a login"
	case status == http.StatusBadRequest && (action == "write" || action == "readwrite"):
		return "the form may be too large for the server or a gateway: lower write_size"
	case status == http.StatusUnauthorized:
		return "something in front of the SOHT server wants a login: set user and password in via if it is the proxy, or else headers"
	case status == http.StatusForbidden:
		return "something in front of the SOHT server forbids the request: ask who runs it"
	case status == http.StatusProxyAuthRequired:
		return "an HTTP proxy wants a login: set user and password in via"
	case status == http.StatusNotFound, status == http.StatusMethodNotAllowed, status == http.StatusGone:
		return "there is no SOHT service at this path: check url"
	case status == http.StatusRequestEntityTooLarge:
		return "a gateway rejects forms of this size: lower write_size"
	case status == http.StatusRequestTimeout, status == http.StatusGatewayTimeout:
		if action == "read" {
			return `a gateway gave up waiting for the target's next byte: raise its read timeout, or set mode = "stateless"`
		}
		return "a gateway gave up waiting for the SOHT server: raise its timeout, or check why the server is slow"
	case status == http.StatusInternalServerError:
		return "see the SOHT server's log"
	case status/100 == 5, status == http.StatusTooManyRequests:
		return "the SOHT server or a gateway in front of it is not available: see its log"
	}
	return "check url and what is in front of the SOHT server"
}

// location is where a redirect leads, without what may be a secret in it.
func (c *client) location(r *http.Response) string {
	u, err := r.Location()
	if err != nil {
		return ""
	}
	u.User, u.RawQuery, u.Fragment = nil, "", ""
	return " to " + c.quote(u.String())
}

// page is an answer that begins with start, as far as its words may come.
func page(r *http.Response, start []byte) []byte {
	rest, _ := io.ReadAll(io.LimitReader(r.Body, sdk.MaxPage)) // what there is
	return append(start, rest...)
}

// notSOHT is an answer with 200 that starts with body.
func (c *client) notSOHT(action string, r *http.Response, body []byte) *Error {
	what := "an answer that is not the protocol's"
	trimmed := strings.ToLower(strings.TrimSpace(string(body)))
	if strings.HasPrefix(trimmed, "<") || strings.HasPrefix(r.Header.Get("Content-Type"), "text/html") && trimmed != "" {
		what = "an HTML page"
	}
	if words := c.quote(string(body)); words != "" { // a page may be a script alone
		what += ": " + words
	}
	return &Error{
		Action: action, Reason: sdk.ReasonProtocol, Err: ErrNotSOHT,
		Message: "answered with " + what,
		Hint:    "check that url is the SOHT service's, and whether a gateway in front of it wants a login",
	}
}

// cut is an answer that ended too early.
func cut(action, message string, cause error) *Error {
	e := &Error{
		Action: action, Reason: sdk.ReasonUnavailable, Message: message, Err: ErrCut, Cause: cause,
		Hint: "check the SOHT server's log, and whether something in between ends answers early",
	}
	if cause != nil {
		e.Message += ": " + cause.Error()
	}
	return e
}

// exchange is a request that got no answer, or one that net/http cannot read
// and quotes.
func (c *client) exchange(action string, cause error) *Error {
	cause = worded{cause, sdk.Excerpt(cause.Error(), maxCause, c.secrets...)}
	return &Error{
		Action: action, Reason: sdk.ReasonUnavailable, Err: ErrExchange, Cause: cause,
		Message: "the request got no answer: " + cause.Error(),
		Hint:    "check that the server there speaks HTTP, and its log",
	}
}

// maxCause bounds the text of an error that may repeat a peer's, in bytes.
const maxCause = 1 << 10

// maxQuote bounds what is repeated of a peer's text.
const maxQuote = 120

// quote returns the start of what a peer sent, without the secrets that it may echo.
func (c *client) quote(s string) string { return sdk.Excerpt(s, maxQuote, c.secrets...) }

// worded is an error in other words.
type worded struct {
	error
	words string
}

func (w worded) Error() string { return w.words }

func (w worded) Unwrap() error { return w.error }
