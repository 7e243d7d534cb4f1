package splice

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/tunneld/tunneld/internal/bare"
)

// heldBy is how many bytes the socket under c holds that its peer's system does
// not have yet.
func heldBy(c net.Conn) int {
	s, ok := bare.Under(c).(syscall.Conn)
	if !ok {
		return 0
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return 0
	}
	n := 0
	// Errors: it is closed.
	_ = raw.Control(func(fd uintptr) { n, _ = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_NWRITE) })
	return n
}
