//go:build unix && !linux

package pluginwire

import "syscall"

// channelType is a stream where the system has no SOCK_SEQPACKET for unix
// sockets: the records' fixed length keeps it in step.
const channelType = syscall.SOCK_STREAM

func socketpair(typ int) ([2]int, error) {
	// The lock keeps a fork in another goroutine from inheriting the
	// descriptors before they are marked.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, typ, 0)
	if err != nil {
		return fds, err
	}
	for _, fd := range fds {
		syscall.CloseOnExec(fd)
		if err := syscall.SetNonblock(fd, true); err != nil {
			_ = syscall.Close(fds[0])
			_ = syscall.Close(fds[1])
			return fds, err
		}
	}
	return fds, nil
}
