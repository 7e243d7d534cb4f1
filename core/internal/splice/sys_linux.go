package splice

import (
	"net"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tunneld/tunneld/internal/bare"
	"github.com/tunneld/tunneld/internal/sockopt"
)

// The calls of the hot path are raw: none of them blocks, and telling Go's
// scheduler of each costs more than a small message takes.

func rawRecv(fd int32, b []byte) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), unix.MSG_DONTWAIT, 0, 0)
	return int(n), errno
}

func rawSend(fd int32, b []byte) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
	return int(n), errno
}

func rawSplice(from, to int32, n int) (int, syscall.Errno) {
	moved, _, errno := syscall.RawSyscall6(unix.SYS_SPLICE, uintptr(from), 0, uintptr(to), 0, uintptr(n), unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
	return int(moved), errno
}

// blockingSplice is rawSplice where it may block, of which Go's scheduler has to know;
// see handed.
func blockingSplice(from, to int32, n int) (int, syscall.Errno) {
	moved, _, errno := syscall.Syscall6(unix.SYS_SPLICE, uintptr(from), 0, uintptr(to), 0, uintptr(n), unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
	return int(moved), errno
}

// epollPoll looks for events without waiting, which nothing can interrupt.
func epollPoll(epfd int, events []unix.EpollEvent) int {
	n, _, errno := syscall.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(epfd), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), 0, 0, 0)
	if errno != 0 {
		return 0
	}
	return int(n)
}

// dupSocket returns a descriptor of its own for c's socket. c is closed: Go's
// poller would wake up for it as well.
func dupSocket(c syscall.RawConn) (int32, error) {
	fd := -1
	var dupErr error
	err := c.Control(func(old uintptr) {
		fd, dupErr = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0)
		if dupErr == nil {
			dupErr = unix.SetNonblock(fd, true)
		}
	})
	if err == nil {
		err = dupErr
	}
	if err != nil && fd >= 0 {
		_ = unix.Close(fd) // err says more
	}
	return int32(fd), err
}

// bareSocket returns the socket under c if nothing wraps it.
func bareSocket(c net.Conn) (syscall.RawConn, bool) {
	var (
		raw syscall.RawConn
		err error
	)
	switch c := c.(type) {
	case *net.TCPConn:
		raw, err = c.SyscallConn()
	case *net.UnixConn:
		raw, err = c.SyscallConn()
	default:
		return nil, false
	}
	return raw, err == nil
}

func isTCP(c net.Conn) bool {
	_, ok := c.(*net.TCPConn)
	return ok
}

// isCut says whether the TCP connection under c, whose write side is open, has been broken.
func isCut(c net.Conn) bool {
	if c = bare.Under(c); !isTCP(c) {
		return false
	}
	raw, ok := bareSocket(c)
	if !ok {
		return false
	}
	const tcpClose = 7 // enum in net/tcp_states.h
	var state uint8
	err := raw.Control(func(fd uintptr) {
		if info, err := unix.GetsockoptTCPInfo(int(fd), unix.SOL_TCP, unix.TCP_INFO); err == nil {
			state = info.State
		}
	})
	return err == nil && state == tcpClose
}

// fit makes a socket that net holds fit for a tunnel.
func fit(c net.Conn) {
	if raw, ok := bareSocket(c); ok {
		// It fails only on a closed connection, which the pump finds out.
		_ = raw.Control(func(fd uintptr) { bare.Fit(int(fd)) })
	}
}

// What closing a TCP socket does to its peer. A tunnel's sockets are unfinished from
// its start on, since the kernel closes them where this process is killed: its peers
// would take half a stream for a whole one.
var (
	unfinished = unix.Linger{Onoff: 1} // it is reset
	finished   = unix.Linger{}         // it gets what is left, and the end
)

// setLinger says what closing fd will do. It cannot fail, and is nothing to a unix
// socket.
func setLinger(fd int32, l *unix.Linger) {
	_ = unix.SetsockoptLinger(int(fd), unix.SOL_SOCKET, unix.SO_LINGER, l)
}

// closeClean closes a socket whose both directions have been shut down.
func closeClean(fd int32) {
	setLinger(fd, &finished)
	_ = unix.Close(int(fd))
}

// closeReset closes a socket so that a TCP peer is reset, also while somebody
// still holds a copy of the descriptor; a unix socket's peer sees its end.
func closeReset(fd int32) {
	switch sockopt.Disconnect(uintptr(fd)) {
	case nil:
	case syscall.EINVAL: // a unix socket
		_ = unix.Shutdown(int(fd), unix.SHUT_RDWR)
	default:
		setLinger(fd, &unfinished)
	}
	_ = unix.Close(int(fd))
}

// closeUnix closes a unix socket of which nobody has a copy. Its peer is reset if it has
// sent what nobody has read; the end that a shutdown makes could come before that.
func closeUnix(fd int32) { _ = unix.Close(int(fd)) }

// held is how many bytes, the end among them, a socket holds that its peer's
// system, or a unix socket's reader, does not have yet.
func held(fd int32) int {
	n, err := unix.IoctlGetInt(int(fd), unix.TIOCOUTQ) // SIOCOUTQ of tcp(7)
	if err != nil {
		return 0 // the connection is gone
	}
	return n
}

// heldBy is held of the socket under c.
func heldBy(c net.Conn) int {
	n := 0
	if raw, ok := bareSocket(bare.Under(c)); ok {
		_ = raw.Control(func(fd uintptr) { n = held(int32(fd)) }) // an error: it is closed
	}
	return n
}
