package pluginhost

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// firstExecFD is above every number that a plugin inherits: between fork and
// exec the child moves those into place, and would overwrite a program's
// descriptor that lies among them.
const firstExecFD = 16

// readOnly says whether what is at path lies on a file system that is mounted
// read-only, so that nobody writes it there.
func readOnly(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && st.Flags&unix.ST_RDONLY != 0
}

// noExec says whether path lies on a file system that is mounted without the right to
// execute.
func noExec(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && st.Flags&unix.ST_NOEXEC != 0
}

// executable returns a descriptor of the file that f is and the path under
// which a forked child executes that very file, whatever stands at its old
// path by then. It takes f over.
func executable(f *os.File, path string) (*os.File, string, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, firstExecFD)
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, "", fmt.Errorf("hold %s: %w", path, err)
	}
	return os.NewFile(uintptr(fd), path), fmt.Sprintf("/proc/self/fd/%d", fd), nil
}
