package sockopt

import "time"

// DeadLineLimit is how long a peer's system may acknowledge nothing while there
// is something to acknowledge until the line counts as dead. A closed window is
// probed at growing intervals, at most 120 s (RFC 9293, 3.8.6.1, and Linux's
// TCP_RTO_MAX): a peer that answers every probe, and is slow to read and no more
// than that, was seen with 120.2 s between two acknowledgements.
const DeadLineLimit = 3 * time.Minute

// DeadLineEvery is how often a connection is looked at for that, at the most: it
// costs a system call.
const DeadLineEvery = DeadLineLimit / 12

// Acks is what the system knows of the acknowledgements of a TCP connection.
type Acks struct {
	// Unacked counts the segments that were sent and not acknowledged; what a
	// closed window keeps back is not among them.
	Unacked uint32
	// Last is the time since the last acknowledgement, in milliseconds' steps.
	Last time.Duration
}

// Line watches one connection for a dead line. The zero value is ready.
type Line struct {
	since time.Duration // when something was first seen unacknowledged; 0: nothing is
}

// Dead says whether the peer has acknowledged nothing for limit, although there
// was something to acknowledge all the time. now is the time since any moment
// before the first call, and always the same moment.
//
// The time since the last acknowledgement does not tell by itself: of a
// connection that was idle for long it is long in the moment in which it sends
// again. An acknowledgement between two calls shows in it.
func (l *Line) Dead(a Acks, now, limit time.Duration) bool {
	if a.Unacked == 0 {
		l.since = 0
		return false
	}
	if l.since == 0 {
		l.since = max(now, 1)
	}
	return now-l.since >= limit && a.Last >= limit
}
