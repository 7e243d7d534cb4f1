package sdk

import (
	"fmt"
	"math"
	"time"

	"golang.org/x/sys/unix"
)

// setUserTimeout bounds how long sent bytes may stay unacknowledged (RFC 5482,
// tcp(7)). The kernel counts in milliseconds.
func setUserTimeout(fd int, d time.Duration) error {
	ms := min(max(d.Milliseconds(), 1), math.MaxInt32)
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(ms)); err != nil {
		return fmt.Errorf("set TCP_USER_TIMEOUT: %w", err)
	}
	return nil
}
