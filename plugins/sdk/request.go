package sdk

import (
	"net"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/tunneld/tunneld/internal/sockopt"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// Target is where a client wants to go.
type Target struct {
	// Host is a DNS name, which nobody has resolved, an IP literal without
	// brackets, maybe with a zone, or a label. It has 1 to 255 bytes, none of them
	// a space, a NUL or another ASCII control character; some clients send UTF-8.
	Host string
	// Port is 0 where the target is a label without one.
	Port uint16
}

// String returns "host:port", with brackets around an IPv6 literal, or the
// label alone.
func (t Target) String() string {
	if t.Port == 0 {
		return t.Host
	}
	return net.JoinHostPort(t.Host, strconv.Itoa(int(t.Port)))
}

// Request is one dial.
type Request struct {
	Target Target
	// Source is the client's address, "host:port", or empty.
	Source string
	// Listener, Route and Connection name the connection in the daemon's log.
	Listener, Route, Connection string
	// Options are for the sockets that the plugin opens; Dialer applies them.
	Options SocketOptions
	// Traceparent and Tracestate are the W3C trace context, or empty.
	Traceparent, Tracestate string

	way   *way                                   // nil: of a request that a test has made
	watch func(remote string, c syscall.RawConn) // takes each socket of Outbound; nil: nobody watches
	kept  *tlsKept                               // nil: the upstream has not started

	mu      sync.Mutex
	stage   Stage
	entered time.Time
	times   []StageTime
}

// SocketOptions are set on sockets towards the far end; see Request.Dialer.
type SocketOptions = sockopt.Options

// StageTime is how long one stage took.
type StageTime struct {
	Stage    Stage
	Duration time.Duration
}

// Stage is how far a dial has come.
type Stage = pluginv1.Stage

// The stages of a dial, in their usual order.
const (
	// StageResolve is looking up a name.
	StageResolve = pluginv1.Stage_STAGE_RESOLVE
	// StageConnect is opening the transport's connection.
	StageConnect = pluginv1.Stage_STAGE_CONNECT
	// StageTLS is the TLS handshake.
	StageTLS = pluginv1.Stage_STAGE_TLS
	// StageCredential is obtaining a credential.
	StageCredential = pluginv1.Stage_STAGE_CREDENTIAL
	// StageHandshake is the protocol's own handshake.
	StageHandshake = pluginv1.Stage_STAGE_HANDSHAKE
	// StageRequest is asking the far end for the target.
	StageRequest = pluginv1.Stage_STAGE_REQUEST
)

// Reason is why a dial failed.
type Reason = pluginv1.Reason

// The reasons of a failed dial.
const (
	ReasonTimeout         = pluginv1.Reason_REASON_TIMEOUT
	ReasonRefused         = pluginv1.Reason_REASON_REFUSED
	ReasonUnreachable     = pluginv1.Reason_REASON_UNREACHABLE
	ReasonNotFound        = pluginv1.Reason_REASON_NOT_FOUND
	ReasonDenied          = pluginv1.Reason_REASON_DENIED
	ReasonUnauthenticated = pluginv1.Reason_REASON_UNAUTHENTICATED
	ReasonProtocol        = pluginv1.Reason_REASON_PROTOCOL
	ReasonUnavailable     = pluginv1.Reason_REASON_UNAVAILABLE
	ReasonCanceled        = pluginv1.Reason_REASON_CANCELED
)

// Health is the state of an upstream.
type Health = pluginv1.Health

// The states of an upstream.
const (
	HealthUnknown = pluginv1.Health_HEALTH_UNKNOWN
	HealthOK      = pluginv1.Health_HEALTH_OK
	HealthFailing = pluginv1.Health_HEALTH_FAILING
)

// Enter ends the stage that was under way and begins the next: the time of each
// goes into the log and the metrics, and an error that Dial returns is of the
// stage entered last. A stage that is entered twice counts with the sum.
func (r *Request) Enter(s Stage) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.leave()
	r.stage, r.entered = s, time.Now()
}

// leave adds the time of the stage under way. It is called with mu held.
func (r *Request) leave() {
	if r.stage == pluginv1.Stage_STAGE_UNSPECIFIED {
		return
	}
	d := time.Since(r.entered)
	for i := range r.times {
		if r.times[i].Stage == r.stage {
			r.times[i].Duration += d
			return
		}
	}
	r.times = append(r.times, StageTime{Stage: r.stage, Duration: d})
}

// finish ends the last stage and returns it with the times of all.
func (r *Request) finish() (Stage, []StageTime) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.leave()
	s := r.stage
	r.stage = pluginv1.Stage_STAGE_UNSPECIFIED
	return s, r.times
}
