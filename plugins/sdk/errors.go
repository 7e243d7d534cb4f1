package sdk

import (
	"fmt"
	"time"
)

// DialError is a failed dial as the daemon and its users see it. One table in
// the daemon turns it into the client's answer, the log line and the metric.
type DialError struct {
	// Stage is where the dial failed; unspecified: the stage that
	// Request.Enter last named.
	Stage Stage
	// Reason is why; unspecified: that of Err, and without Err unavailable and
	// retryable.
	Reason Reason
	// Retryable says that another upstream, or this one later, may succeed.
	Retryable bool
	// Message says what happened, in the protocol's own words; empty: the
	// reason's name, which the conformance kit does not take. No secret.
	Message string
	// Hint says what the user should check, or is empty.
	Hint string
	// RetryAfter says for how long another try of the upstream is pointless, whatever
	// the target; 0: not known. The daemon passes the upstream over meanwhile, for 5
	// minutes at most, where the route has another.
	RetryAfter time.Duration
	// Err is the cause, for errors.Is; the text of it is not sent.
	Err error
}

// Error returns "stage: message (hint)".
func (e *DialError) Error() string {
	s := fmt.Sprintf("%s: %s", e.Stage.Text(), e.Message)
	if e.Hint != "" {
		s += " (" + e.Hint + ")"
	}
	return s
}

// Unwrap returns the cause.
func (e *DialError) Unwrap() error { return e.Err }

// Diagnostic is something that a user is told about the configuration.
type Diagnostic struct {
	// Warning makes it a warning; a diagnostic is an error otherwise.
	Warning bool
	// NotYet says of an error that what is written may be right, and names what is
	// not there yet, as the file of a secret: the daemon then ends with a status
	// that lets its service manager try again.
	NotYet bool
	// Summary says what is wrong, Detail what to do next. No secrets.
	Summary, Detail string
	// Path is where: attribute and block names from the body's root, with a
	// list's index and a labelled block's label as steps of their own. Empty:
	// the block as a whole.
	Path []string
}
