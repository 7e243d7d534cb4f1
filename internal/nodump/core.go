//go:build unix

package nodump

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// noCore sets the limit of core files to none. A kernel that pipes them to a program
// asks the process's dumpable flag, and not this.
func noCore() error {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("forbid core files: %w", err)
	}
	return nil
}
