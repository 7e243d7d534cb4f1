//go:build !linux

package bare

import "golang.org/x/sys/unix"

// ProcessOf returns the process at the other end of a connected unix socket, as it was when
// it connected or listened (SOL_LOCAL of unix(4) on macOS).
func ProcessOf(fd int) Process {
	cred, err := unix.GetsockoptXucred(fd, unix.SOL_LOCAL, unix.LOCAL_PEERCRED)
	if err != nil {
		return Process{}
	}
	pid, err := unix.GetsockoptInt(fd, unix.SOL_LOCAL, unix.LOCAL_PEERPID)
	if err != nil {
		pid = 0
	}
	return Process{Known: true, UID: cred.Uid, PID: int32(pid)}
}
