package nodump

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// undumpable is PR_SET_DUMPABLE (prctl(2)).
func undumpable() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("forbid others to inspect this process: %w", err)
	}
	return nil
}
