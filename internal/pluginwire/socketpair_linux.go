package pluginwire

import "syscall"

// channelType keeps one record to a message, so that a bad one cannot shift
// those behind it.
const channelType = syscall.SOCK_SEQPACKET

func socketpair(typ int) ([2]int, error) {
	return syscall.Socketpair(syscall.AF_UNIX, typ|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, 0)
}
