package sdk

import (
	"net"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// Target is where a client wants to go.
type Target struct {
	// Host is a DNS name, which nobody has resolved, an IP address without brackets,
	// maybe with a zone, or a label. It has 1 to 255 bytes of ASCII, none of them a space
	// or a control character: names beyond ASCII come in their xn-- form. It does not end
	// in a dot.
	Host string
	// Port is 0 for a label, which has none.
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

// Request is one dial. Its methods may be called by several goroutines at once. The zero
// value with a Target is good for a test of Dial: it connects as the system does.
type Request struct {
	// Target is where the client wants to go.
	Target Target
	// Source is the client's address, "host:port", or empty.
	Source string
	// Listener and Route are names of the configuration, Connection is the id in the
	// daemon's log. They are for the plugin's own log; each may be empty.
	Listener, Route, Connection string
	// Options are for sockets that the plugin opens by itself; those of Connect and
	// Outbound have them.
	Options SocketOptions

	way   *way                                   // nil: of a request that a test has made
	watch func(remote string, c syscall.RawConn) // takes each socket of Outbound; nil: nobody watches
	kept  *tlsKept                               // nil: the upstream has not started

	mu      sync.Mutex
	stage   Stage
	entered time.Time
	times   []StageTime
}

// SocketOptions are what the configuration says of sockets towards the far end. The
// system rounds durations to whole seconds, UserTimeout to milliseconds.
type SocketOptions struct {
	// Nodelay sends small writes at once (TCP_NODELAY).
	Nodelay bool
	// KeepaliveIdle is how long a connection may be silent before the first keep-alive
	// probe; 0: no keep-alive at all.
	KeepaliveIdle time.Duration
	// KeepaliveInterval is the time between two probes; 0: the system's default.
	KeepaliveInterval time.Duration
	// KeepaliveCount is how many probes may stay unanswered; 0: the system's default.
	KeepaliveCount int
	// UserTimeout is how long sent bytes may stay unacknowledged (RFC 5482); 0: the
	// system's default. It is of Linux, and has no effect elsewhere.
	UserTimeout time.Duration
}

// Enter ends the stage under way and begins the next. The time of each goes into the log
// and the metrics, and an error that Dial returns is of the stage entered last. The times
// of a stage that is entered twice are added up.
func (r *Request) Enter(s Stage) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.leave()
	r.stage, r.entered = s, time.Now()
}

// leave adds the time of the stage under way. It is called with mu held.
func (r *Request) leave() {
	if r.stage == 0 {
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
	r.stage = 0
	return s, r.times
}
