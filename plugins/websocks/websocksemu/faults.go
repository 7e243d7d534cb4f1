package websocksemu

import "time"

// Faults is how a server strays from the good case. The zero value is the
// original server at its best.
type Faults struct {
	// StopAt ends or holds the connection at a step, in the way of StopBy.
	StopAt Step
	StopBy Ending
	// Delay precedes each answer.
	Delay time.Duration
	// ByteAtATime sends each byte of the handshake on its own.
	ByteAtATime bool

	// TLS13 speaks TLS 1.3 as well, and refuses ALPN without http/1.1 by an alert.
	// The original speaks TLS 1.2 and HTTP/1.1 alone, and falls silent where a
	// client does not offer them.
	TLS13 bool
	// CloseNotify ends directions of TLS connections by close_notify, and takes
	// the client's for the end of its own. The original ends by TCP's FIN alone,
	// and a close_notify breaks its connection: what it has not yet passed on is
	// lost, and nothing travels any more, in either direction.
	CloseNotify bool

	// ClockOffset is how far the server's clock is ahead.
	ClockOffset time.Duration
	// Status, unless 0, is answered to every request instead of 101, with Body.
	Status int
	Body   string
	// OpenBody leaves the Content-Length of a refusal out and the connection
	// open, so that its body has no end.
	OpenBody bool
	// Raw is sent as it is instead of an HTTP answer.
	Raw string
	// Informational is how many 103 answers precede the answer.
	Informational int
	// LowerCase writes the names of the answer's headers in lower case, as
	// gateways do.
	LowerCase bool
	// Headers are further header lines of each answer, "Name: value".
	Headers []string
	// Replace has other values for headers of the 101, those of ReplaceableHeaders;
	// an empty one leaves the header out.
	Replace map[string]string
	// EndlessHeader never ends the answer's header.
	EndlessHeader bool

	// Frame is sent instead of the ten bytes, whatever its length.
	Frame []byte
	// Method is what the SOCKS greeting is answered with.
	Method byte
	// Reply is the REP that each CONNECT is answered with; one that refuses
	// leaves the socket open.
	Reply byte
	// ShortReply sends the first two of a refusal's ten bytes alone.
	ShortReply bool
	// Bound is the host of a successful reply: an IP literal or a name; empty:
	// 0.0.0.0.
	Bound string
	// Ahead is sent in one packet with the reply, as if the target had spoken.
	Ahead string
	// DialAtOnce connects to the target before the reply, which then tells how
	// that went. The original connects after the client's first byte and tells
	// nothing.
	DialAtOnce bool
}

// ReplaceableHeaders are what Faults.Replace has a say in.
var ReplaceableHeaders = []string{"Upgrade", "Connection", "Sec-WebSocket-Accept", "Sec-WebSocket-Protocol"}

// Step is how far a connection has come.
type Step int

// The steps, in their order.
const (
	// Never is no step.
	Never Step = iota
	// Accepted: nothing was read, the TLS handshake not begun.
	Accepted
	// Requested: the upgrade was asked for, and not answered.
	Requested
	// Upgraded: the 101 was sent.
	Upgraded
	// Framed: the ten bytes were answered.
	Framed
	// Greeted: the SOCKS method was answered.
	Greeted
	// Connected: the SOCKS reply was sent. No target is connected to.
	Connected
)

// String returns a step's name, for flags and the log.
func (s Step) String() string {
	return [...]string{"never", "accept", "request", "upgrade", "frame", "greeting", "connect"}[s]
}

// Ending is how a connection stops.
type Ending int

// The endings.
const (
	// Hang keeps the connection open and silent.
	Hang Ending = iota
	// Close ends it cleanly.
	Close
	// Reset breaks it off.
	Reset
)

// String returns an ending's name, as the log has it.
func (e Ending) String() string { return [...]string{"stay silent", "close", "reset"}[e] }

// Exchange is what was seen on one connection.
type Exchange struct {
	// ServerName, Protocols and TLSVersion are from a TLS client's hello: SNI,
	// ALPN and the version that was agreed on.
	ServerName string
	Protocols  []string
	TLSVersion uint16
	// Resumed: it is a session of an earlier connection.
	Resumed bool
	// Request is the last request's head as it came, the empty line included.
	Request string
	// Status is what it was answered with.
	Status int
	// Early is how many bytes came behind a request and were swallowed.
	Early int
	// Pongs is how many PONG messages came before the ten bytes.
	Pongs int
	// Frame is the ten bytes.
	Frame []byte
	// Target is what CONNECT asked for, "host:port".
	Target string
	// Reads is what each read of the handshake brought.
	Reads [][]byte
}
