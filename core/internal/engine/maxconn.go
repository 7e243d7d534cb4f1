package engine

import (
	"math"
	"syscall"

	"github.com/tunneld/tunneld/core/internal/config"
)

// reservedDescriptors are for listeners, plugins and logs.
const reservedDescriptors = 256

// perConnection is how many descriptors a tunnel holds.
const perConnection = 2

// maxConnections is the daemon's limit: as configured, or what RLIMIT_NOFILE
// leaves room for.
func maxConnections(d config.Daemon) int {
	if d.MaxConnections > 0 {
		return d.MaxConnections
	}
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return math.MaxInt
	}
	if limit.Cur > math.MaxInt32 {
		return math.MaxInt32 / perConnection
	}
	pipes := min(int(limit.Cur)/16, 512) // what the pump may hold, see splice
	return max(int(limit.Cur)-reservedDescriptors-pipes, perConnection) / perConnection
}
