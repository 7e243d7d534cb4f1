package sockopt

import (
	"errors"
	"fmt"
	"math"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

func setUserTimeout(fd uintptr, d time.Duration) error {
	ms := 0
	if d > 0 {
		ms = int(min(max(d.Milliseconds(), 1), math.MaxInt32))
	}
	err := unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, ms)
	return os.NewSyscallError("set TCP_USER_TIMEOUT", err)
}

// ApplyRaw is Apply for a TCP socket of any state. A listening one passes the
// options on to the connections that it accepts.
func (o Options) ApplyRaw(c syscall.RawConn) error {
	var err error
	if controlErr := c.Control(func(fd uintptr) { err = o.ApplyFD(int(fd)) }); controlErr != nil {
		return fmt.Errorf("set socket options: %w", controlErr)
	}
	return err
}

// ApplyFD is ApplyRaw for a descriptor.
func (o Options) ApplyFD(fd int) error {
	set := func(level, name, value int) error {
		return os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, level, name, value))
	}
	err := set(unix.IPPROTO_TCP, unix.TCP_NODELAY, flag(o.Nodelay))
	err = errors.Join(err, set(unix.SOL_SOCKET, unix.SO_KEEPALIVE, flag(o.KeepaliveIdle > 0)))
	if o.KeepaliveIdle > 0 {
		err = errors.Join(err, set(unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, seconds(o.KeepaliveIdle)))
		if o.KeepaliveInterval > 0 {
			err = errors.Join(err, set(unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, seconds(o.KeepaliveInterval)))
		}
		if o.KeepaliveCount > 0 {
			err = errors.Join(err, set(unix.IPPROTO_TCP, unix.TCP_KEEPCNT, o.KeepaliveCount))
		}
	}
	// Zero is the system's default, also for a listening socket that had another.
	return errors.Join(err, setUserTimeout(uintptr(fd), o.UserTimeout))
}

// LeavePort leaves the port of a socket that is about to be bound to an address alone
// to its connect: ports are then taken for each peer, and do not run out for all.
func LeavePort(fd uintptr) {
	// A kernel that does not know it takes one for all.
	_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
}

func flag(b bool) int {
	if b {
		return 1
	}
	return 0
}

func seconds(d time.Duration) int {
	return int(min(max((d+time.Second-1)/time.Second, 1), math.MaxInt16))
}

const tcpKeepIdle = unix.TCP_KEEPIDLE

// Disconnect ends a TCP connection at once and leaves the socket open: its peer is sent
// a reset, and reads and writes fail, on whatever copy of the descriptor. Its error is
// the system's; EINVAL is that of a unix socket.
//
// Go's scheduler knows of the call, since it may wait: for a splice, say, that waits on
// another copy and holds the socket's lock.
func Disconnect(fd uintptr) error {
	var unspec unix.RawSockaddrInet4 // AF_UNSPEC: tcp_disconnect
	_, _, errno := unix.Syscall(unix.SYS_CONNECT, fd, uintptr(unsafe.Pointer(&unspec)), unsafe.Sizeof(unspec))
	if errno != 0 {
		return errno
	}
	return nil
}

// ReadAcks returns what the system knows of the socket's acknowledgements; ok is
// false if it is not a TCP connection.
func ReadAcks(fd uintptr) (a Acks, ok bool) {
	info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return Acks{}, false
	}
	return Acks{Unacked: info.Unacked, Last: time.Duration(info.Last_ack_recv) * time.Millisecond}, true
}
