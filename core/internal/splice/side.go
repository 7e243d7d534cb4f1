package splice

import (
	"net"
	"sync/atomic"
	"syscall"

	"github.com/tunneld/tunneld/core/internal/tunnel"
	"github.com/tunneld/tunneld/internal/bare"
)

// side is one end of a flow, and the direction that it is the source of.
type side struct {
	*tunnel.End
	name  string
	moved atomic.Int64 // bytes from it that were written
	shut  atomic.Bool  // its write side is about to be, or is, shut down
	// paused: what was read from it waits for bandwidth.
	paused atomic.Bool

	passed chan struct{} // closed once the end of its direction was passed on
	over   bool          // its plugin has ended the tunnel cleanly
	sinks  bool          // what it sends is dropped
}

// endedByAlert says whether TLS has said that the side has ended, whatever becomes of its
// socket then: a client that reads none of the tickets that it gets resets it.
func (s *side) endedByAlert() bool {
	c, ok := s.Stream.(interface{ EndedByAlert() bool })
	return ok && c.EndedByAlert()
}

// cut tells the end of a side from a reset of which the other direction's write has
// been told: the system tells only once, and then a read says "end".
func (s *side) cut() error {
	// Once that direction has ended, it was by no error.
	if !s.endedByAlert() && !s.shut.Load() && isCut(s.Stream) && !s.shut.Load() {
		return syscall.ECONNRESET
	}
	return nil
}

// gone says whether a side was reset that has ended its direction, so that nobody reads
// from it, and is not at its own end.
func (s *side) gone() bool {
	select {
	case <-s.passed:
		return s.Relay == nil && !s.endedByAlert() && !s.shut.Load() && bare.Gone(s.Stream) && !s.shut.Load()
	default:
		return false
	}
}

func closeWrite(c net.Conn) error {
	if h, ok := c.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return c.Close()
}

// linger is SetLinger of the TCP connection under c.
func linger(c net.Conn, seconds int) {
	if t, ok := bare.Under(c).(*net.TCPConn); ok {
		_ = t.SetLinger(seconds) // it fails on a connection that is reset already
	}
}
