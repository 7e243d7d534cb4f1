package sapsocksemu

import "time"

// Step is one answer of the proxy.
type Step int

// The steps; 0 is none of them.
const (
	// StepGreeting is the choice of a method.
	StepGreeting Step = iota + 1
	// StepAuth is the status of the authentication.
	StepAuth
	// StepRequest is the reply to the request.
	StepRequest
)

// String returns a step's name, for flags and the log.
func (s Step) String() string {
	return [...]string{"none", "greeting", "authentication", "request"}[s]
}

// Faults is what goes wrong; the zero value is nothing.
type Faults struct {
	// Silent never answers at that step. The connection stays open.
	Silent Step
	// CloseAt closes instead of answering at that step; Reset does it by RST.
	CloseAt Step
	Reset   bool
	// Garbage answers at that step as a web server would.
	Garbage Step
	// Delay is waited before each answer.
	Delay time.Duration
	// Bytewise sends each byte of an answer in a packet of its own.
	Bytewise bool

	// Method is chosen whatever was offered.
	Method *byte
	// AuthStatus, if not 0, refuses the authentication, and so do tokens that
	// are not valid. RefuseByReply tells it by reply 05 instead of a status.
	AuthStatus    byte
	RefuseByReply bool
	// Reply, if not 0, refuses each request (REP of RFC 1928).
	Reply byte
	// ShortReply sends two bytes of a refusal, and the end of file.
	ShortReply bool
	// HalfReply sends two bytes of a refusal, and nothing more.
	HalfReply bool
	// Bound is BND.ADDR and BND.PORT of a success, "host:port"; its kind of host decides
	// the address type. Empty: the real one.
	Bound string
	// WithData holds the reply back until the backend has spoken, and sends both
	// in one packet.
	WithData bool

	Token TokenFaults
}

// TokenFaults is what goes wrong at the token service.
type TokenFaults struct {
	// Silent never answers.
	Silent bool
	// Delay is waited before the answer.
	Delay time.Duration
	// Status, if not 0, is answered with Body.
	Status int
	// Body, if not empty, is answered instead of a token, with ContentType.
	Body, ContentType string
	// RetryAfter is the header's value.
	RetryAfter string
	// Redirect is where the client is sent instead (307, which keeps the body).
	Redirect string
	// Huge answers without an end.
	Huge bool
	// BreakOff closes in the middle of the answer's body.
	BreakOff bool
	// NoExpiry leaves expires_in away; BornExpired makes it negative, since many clients
	// take 0 for none.
	NoExpiry, BornExpired bool
}
