package engine

import (
	"math"
	"syscall"

	"github.com/tunneld/tunneld/core/internal/config"
)

// reservedDescriptors are for plugins, logs and what is being dialed.
const reservedDescriptors = 256

// perConnection is how many descriptors a tunnel holds.
const perConnection = 2

// maxConnections is the daemon's limit: as configured, or what RLIMIT_NOFILE
// leaves room for.
func maxConnections(cfg *config.Config) int {
	if n := cfg.Daemon.MaxConnections; n > 0 {
		return n
	}
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return math.MaxInt
	}
	if limit.Cur > math.MaxInt32 {
		return math.MaxInt32 / perConnection
	}
	pipes := min(int(limit.Cur)/16, 512) // what the pump may hold, see splice
	free := int(limit.Cur) - reservedDescriptors - pipes - len(cfg.Listeners)
	return max(free, perConnection) / perConnection
}
