//go:build unix && !linux

package pluginhost

import (
	"syscall"
)

// maxSocketPath is the longest path that a unix socket can have, in bytes.
const maxSocketPath = 103

// reap waits for the process, collects it and ends what is left of its group.
// There is no waiting without collecting here: for a moment the number could be
// another group's.
func (c *child) reap() {
	// Its error repeats the state.
	_ = c.cmd.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.spare {
		_ = syscall.Kill(-c.pid, syscall.SIGKILL)
	}
	c.alive = false
}
