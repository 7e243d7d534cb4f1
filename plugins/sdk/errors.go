package sdk

import (
	"fmt"
	"time"
)

// DialError is a failed dial as the daemon and its users see it. The daemon makes the
// client's answer, the line of the log and the metric of it.
type DialError struct {
	// Stage is where the dial failed; zero: the stage that Request.Enter named last.
	Stage Stage
	// Reason is why; zero: that of Err as NetworkError finds it, and without Err
	// ReasonUnavailable, which is retryable.
	Reason Reason
	// Retryable says that another upstream, or this one later, may succeed: the daemon
	// then tries the next upstream of the route.
	Retryable bool
	// Message says what happened, in the protocol's own words; empty: the reason's
	// name, which the conformance kit does not accept.
	Message string
	// Hint says what the user should check, or is empty.
	Hint string
	// RetryAfter says for how long another try of the upstream is pointless, whatever
	// the target; 0: not known. The daemon passes the upstream over for that time, 5
	// minutes at most, where the route has another.
	RetryAfter time.Duration
	// Err is the cause, for errors.Is; its text is not sent.
	Err error
}

// Error returns "stage: message (hint)".
func (e *DialError) Error() string {
	s := fmt.Sprintf("%s: %s", e.Stage, e.Message)
	if e.Hint != "" {
		s += " (" + e.Hint + ")"
	}
	return s
}

// Unwrap returns the cause.
func (e *DialError) Unwrap() error { return e.Err }

// Diagnostic is a problem of the configuration, as the user sees it.
type Diagnostic struct {
	// Warning makes it a warning; a diagnostic is an error otherwise.
	Warning bool
	// NotYet says of an error that the configuration may be right: what it names, such
	// as the file of a secret, is not there yet. The daemon's exit status then lets its
	// service manager try again.
	NotYet bool
	// Summary says what is wrong, in a line.
	Summary string
	// Detail says what to do next, in sentences; may be empty.
	Detail string
	// Path is where: attribute and block names from the body's root, with a
	// list's index and a labelled block's label as steps of their own:
	// {"oauth", "client_id"}. Empty: the block as a whole.
	Path []string
}
