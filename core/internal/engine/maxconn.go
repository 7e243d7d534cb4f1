package engine

import (
	"fmt"
	"log/slog"
	"math"
	"slices"
	"syscall"

	"github.com/tunneld/tunneld/core/internal/config"
)

// reservedDescriptors are for plugins, logs and what is being dialed.
const reservedDescriptors = 256

// perConnection is how many descriptors a tunnel holds, and perExchange how many a client
// does that sends requests: its own, and those of a tunnel whose client is the daemon.
const (
	perConnection = 2
	perExchange   = 4
)

// fewConnections is what a daemon is warned of that nobody gave a limit. A system
// with the usual limits leaves room for hundreds of thousands.
const fewConnections = 1000

// ceiling is the most connections at a time.
type ceiling struct {
	connections int
	configured  bool // by daemon.max_connections; else it is what the files leave room for
	files       int  // the limit on open files, RLIMIT_NOFILE; 0: there is none, or it is not known
	room        int  // for connections, as files has it
}

// newCeiling is the ceiling under a configuration and the limit on open files as
// they are now.
func newCeiling(cfg *config.Config) ceiling {
	c := ceiling{connections: cfg.Daemon.MaxConnections}
	c.files, c.room = roomForConnections(cfg.Listeners)
	if c.configured = c.connections > 0; !c.configured {
		c.connections = c.room
	}
	return c
}

func roomForConnections(listeners []config.Listener) (files, room int) {
	each := perConnection
	if slices.ContainsFunc(listeners, config.Listener.TakesRequests) {
		each = perExchange
	}
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0, math.MaxInt
	}
	if limit.Cur > math.MaxInt32 {
		return 0, math.MaxInt32 / each
	}
	files = int(limit.Cur)
	pipes := min(files/16, 512) // what the pump may hold, see splice
	free := files - reservedDescriptors - pipes - len(listeners)
	return files, max(free, each) / each
}

// over says that the ceiling is reached.
func (c ceiling) over(open int) *overLimit {
	if c.configured {
		return &overLimit{limit: "daemon.max_connections", state: fmt.Sprintf("%d connections are open", open)}
	}
	return &overLimit{
		limit: "RLIMIT_NOFILE",
		state: fmt.Sprintf("%d connections are open, and the limit on open files, %d, leaves room for no more", open, c.files),
		hint:  raiseFiles + ", or find out who holds the connections",
	}
}

const raiseFiles = "raise the limit on open files (ulimit -n, LimitNOFILE of systemd)"

// warn logs where the limit on open files leaves room for less than one would
// expect.
func (c ceiling) warn(log *slog.Logger) {
	attrs := []any{"open_files", c.files, "connections", c.room, "hint", raiseFiles}
	switch {
	case c.configured && c.connections > c.room:
		log.Warn("the limit on open files leaves room for less than daemon.max_connections", append(attrs, "max_connections", c.connections)...)
	case !c.configured && c.room < fewConnections:
		log.Warn("the limit on open files leaves room for few connections", attrs...)
	}
}
