package fdtest

import (
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// BytesInPipes counts what waits in the pipes of a test's process.
func BytesInPipes(t testing.TB) (total int) {
	t.Helper()
	for _, name := range Pipes(t) {
		fd, err := strconv.Atoi(name)
		if err != nil {
			t.Fatal(err)
		}
		if fd <= 2 {
			continue // whatever runs the test reads those
		}
		if n, err := unix.IoctlGetInt(fd, unix.TIOCINQ); err == nil {
			total += n
		}
	}
	return total
}
