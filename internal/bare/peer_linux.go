package bare

import "golang.org/x/sys/unix"

// ProcessOf returns the process at the other end of a connected unix socket, as it was when
// it connected or listened (SO_PEERCRED of unix(7)).
func ProcessOf(fd int) Process {
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return Process{}
	}
	return Process{Known: true, UID: cred.Uid, PID: cred.Pid}
}
