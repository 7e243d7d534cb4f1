package engine

import (
	"time"

	"github.com/tunneld/tunneld/core/internal/tunnel"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// stageClock times the stages of a direct dial.
type stageClock struct {
	stage   pluginv1.Stage
	entered time.Time
	done    []tunnel.StageTime
}

func (c *stageClock) enter(s pluginv1.Stage) {
	c.leave()
	c.stage, c.entered = s, time.Now()
}

func (c *stageClock) leave() {
	if c.stage != pluginv1.Stage_STAGE_UNSPECIFIED {
		c.done = append(c.done, tunnel.StageTime{Stage: c.stage, Duration: time.Since(c.entered)})
	}
}

func (c *stageClock) stop() (pluginv1.Stage, []tunnel.StageTime) {
	c.leave()
	return c.stage, c.done
}
