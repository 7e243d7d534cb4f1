package engine

import (
	"sync"
	"time"

	"github.com/tunneld/tunneld/core/internal/tunnel"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// stageClock times the two stages of a direct dial. Dialing several addresses
// at once enters the second stage more than once: the first time counts.
type stageClock struct {
	mu      sync.Mutex
	stage   pluginv1.Stage
	entered time.Time
	done    []tunnel.StageTime
}

func (c *stageClock) enter(s pluginv1.Stage) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stage == s {
		return
	}
	now := time.Now()
	c.done = append(c.done, tunnel.StageTime{Stage: c.stage, Duration: now.Sub(c.entered)})
	c.stage, c.entered = s, now
}

func (c *stageClock) stop() (pluginv1.Stage, []tunnel.StageTime) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stage, append(c.done, tunnel.StageTime{Stage: c.stage, Duration: time.Since(c.entered)})
}
