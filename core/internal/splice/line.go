package splice

import (
	"fmt"
	"net"
	"syscall"
	"time"

	"github.com/tunneld/tunneld/core/internal/tunnel"
	"github.com/tunneld/tunneld/internal/bare"
	"github.com/tunneld/tunneld/internal/sockopt"
)

// sideNames are the two sides of a tunnel, for errors.
var sideNames = [2]string{"client", "upstream"}

// lineCheck is how the pump looks for dead lines. The fields are sockopt's in
// production.
type lineCheck struct {
	limit time.Duration
	every uint32 // ticks between two looks at a tunnel
	acks  func(fd uintptr) (sockopt.Acks, bool)
}

func defaultLineCheck() *lineCheck {
	return &lineCheck{
		limit: sockopt.DeadLineLimit,
		every: uint32(sockopt.DeadLineEvery / tick),
		acks:  sockopt.ReadAcks,
	}
}

// due spreads the looks at many tunnels over the ticks.
func (c *lineCheck) due(ticks, index uint32) bool { return (ticks+index)%c.every == 0 }

// dead says whether the line of the socket is.
func (c *lineCheck) dead(l *sockopt.Line, fd uintptr, now time.Duration) bool {
	a, ok := c.acks(fd)
	return ok && l.Dead(a, now, c.limit)
}

// deadConn is dead for the socket under conn.
func (c *lineCheck) deadConn(l *sockopt.Line, conn net.Conn, now time.Duration) (dead bool) {
	socket, ok := bare.Under(conn).(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return false
	}
	_ = raw.Control(func(fd uintptr) { dead = c.dead(l, fd, now) }) // an error: it is closed
	return dead
}

// ended is how a tunnel ends with the line of a side.
func (c *lineCheck) ended(side int) (tunnel.CloseReason, error) {
	return tunnel.CloseDeadLine, fmt.Errorf("%s: no acknowledgement for %s of what was sent: the line is dead", sideNames[side], c.limit)
}
