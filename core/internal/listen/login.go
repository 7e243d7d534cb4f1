package listen

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Login says whether a user has a password. It may take its time, and returns soon after
// ctx is done. An error says that this was not checked.
type Login func(ctx context.Context, user, password string) (bool, error)

// LoginError is a client that was not let in with its user and password.
type LoginError struct {
	// User is whatever the client has sent.
	User string
	// Unchecked is why they were not checked; nil: they are wrong.
	Unchecked error
}

func (e *LoginError) Error() string {
	if e.Unchecked != nil {
		return fmt.Sprintf("the login was not checked: %v", e.Unchecked)
	}
	return "wrong user or password"
}

// Unwrap returns Unchecked.
func (e *LoginError) Unwrap() error { return e.Unchecked }

func (e *LoginError) hint() string {
	if e.Unchecked != nil {
		return "the client can try again. Logins wait while others are checked, and after a wrong one from the same address: see who sends those, or lower the cost of the hashes in htpasswd_file (htpasswd -B -C 10)"
	}
	return "check user and password in the client's settings, and auth of the listener with its htpasswd_file"
}

// ErrAsked is what a client's handshake ends with that was told to come again with a user
// and a password. Most HTTP clients come without at first.
var ErrAsked = errors.New("the client sent no user and password, and was asked for them")

// errLoginTime ends a login for which the client's time for its handshake was too short.
var errLoginTime = errors.New("it had to wait longer than timeouts.handshake of the listener")

// errNobody is what the error of a prover is whose client is gone, or is broken off: there
// is nobody to be told.
var errNobody = errors.New("nobody is there to be told")

// nobodyError is errNobody, and why.
type nobodyError struct{ why error }

func (e *nobodyError) Error() string   { return e.why.Error() }
func (e *nobodyError) Unwrap() []error { return []error{errNobody, e.why} }

// prover checks a client's user and password. It is nil where nobody is asked.
type prover func(user, password string) error

// prover is that of a client which has begun to talk. The error is a *LoginError, or errNobody.
func (c *Conn) prover(ctx context.Context) prover {
	if c.login == nil {
		return nil
	}
	return c.proves(ctx, c.login, c.until)
}

// proves checks by login, in time: zero: it may take any.
func (c *Conn) proves(ctx context.Context, login Login, until time.Time) prover {
	return func(user, password string) error {
		there, stop := c.watched(ctx)
		defer stop()
		inTime := there
		if !until.IsZero() {
			var cancel context.CancelFunc
			inTime, cancel = context.WithDeadlineCause(there, until, errLoginTime)
			defer cancel()
		}
		right, err := login(inTime, user, password)
		switch {
		case there.Err() != nil:
			return &nobodyError{context.Cause(there)}
		case err == nil && right:
			return nil
		}
		return &LoginError{user, err}
	}
}
