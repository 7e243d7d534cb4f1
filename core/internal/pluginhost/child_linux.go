package pluginhost

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// maxSocketPath is the longest path that a unix socket can have, in bytes.
const maxSocketPath = 107

// reap waits for the process, ends what is left of its group, and collects it.
// A process that has ended but was not collected keeps its number, so that the
// signal cannot meet another group.
func (c *child) reap() {
	for unix.Waitid(unix.P_PID, c.pid, nil, unix.WEXITED|unix.WNOWAIT, nil) == unix.EINTR {
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.spare {
		_ = syscall.Kill(-c.pid, syscall.SIGKILL)
	}
	// Its error repeats the state.
	_ = c.cmd.Wait()
	c.alive = false
}
