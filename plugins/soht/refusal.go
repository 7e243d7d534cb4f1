package soht

import (
	"errors"
	"strings"

	"github.com/tunneld/tunneld/plugins/sdk"
)

// ErrRefused is an open that the server answered with FAIL.
var ErrRefused = errors.New("refused by the SOHT server")

// refusals are the texts of a FAIL, in small letters, and what they mean. The
// first half are the server's own, the others are those of Java's exceptions.
var refusals = []struct {
	text   string
	reason sdk.Reason
	hint   string
}{
	{"username and password required", sdk.ReasonUnauthenticated, "the server wants a login: set username and password"},
	{"invalid username", sdk.ReasonUnauthenticated, "check username"},
	{"invalid password", sdk.ReasonUnauthenticated, "check password"},
	{"host or port parameter not specified", sdk.ReasonProtocol, "something in front of the server may have dropped the form's fields"},
	{"refused", sdk.ReasonRefused, "nothing listens at %s, seen from the SOHT server"},
	{"timed out", sdk.ReasonTimeout, "the SOHT server gets no answer from %s: check the firewall between them"},
	{"no route to host", sdk.ReasonUnreachable, "the SOHT server has no network path to %s"},
	{"unreachable", sdk.ReasonUnreachable, "the SOHT server has no network path to %s"},
	{"permission denied", sdk.ReasonDenied, "the SOHT server may not connect to %s"},
	{"not known", sdk.ReasonNotFound, "the SOHT server cannot resolve %s"},
	{"unknown host", sdk.ReasonNotFound, "the SOHT server cannot resolve %s"},
}

// refusal is the meaning of a FAIL's text.
func (c *client) refusal(text string, target sdk.Target) *Error {
	e := &Error{
		Action: "open", Reason: sdk.ReasonUnavailable, Err: ErrRefused,
		Message: "the server says " + `"` + c.quote(text) + `"`,
		Hint:    "see the SOHT server's log",
	}
	lower := strings.ToLower(text)
	for _, r := range refusals {
		if strings.Contains(lower, r.text) {
			e.Reason, e.Hint = r.reason, strings.ReplaceAll(r.hint, "%s", target.String())
			return e
		}
	}
	// Java's UnknownHostException has the bare name for its text.
	if strings.EqualFold(strings.TrimSpace(text), target.Host) {
		e.Reason, e.Hint = sdk.ReasonNotFound, "the SOHT server cannot resolve "+target.Host
	}
	return e
}
