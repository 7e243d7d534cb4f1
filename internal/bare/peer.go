package bare

import (
	"fmt"
	"net/netip"
)

// Peer is who has connected to a socket that listens.
type Peer struct {
	Addr    netip.AddrPort // zero: to a unix socket
	Process Process        // of who connected to that
}

// String is the address, or the process.
func (p Peer) String() string {
	if p.Addr.IsValid() {
		return p.Addr.String()
	}
	return p.Process.String()
}

// Process is the one at the other end of a connected unix socket.
type Process struct {
	Known bool // the system has told
	UID   uint32
	PID   int32 // 0: it is not known, as of a process in another container
}

// String returns "unix:uid=1000,pid=4242", of which the system may know less.
func (p Process) String() string {
	switch {
	case !p.Known:
		return "unix"
	case p.PID == 0:
		return fmt.Sprintf("unix:uid=%d", p.UID)
	}
	return fmt.Sprintf("unix:uid=%d,pid=%d", p.UID, p.PID)
}
