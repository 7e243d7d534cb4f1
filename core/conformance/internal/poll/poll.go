// Package poll waits for conditions that no event announces.
package poll

import (
	"context"
	"time"
)

// Until asks every 10 ms until the answer is true, within has passed or ctx is
// done, and returns the last answer.
func Until(ctx context.Context, within time.Duration, ask func() bool) bool {
	deadline := time.NewTimer(within)
	defer deadline.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ask() {
		select {
		case <-tick.C:
		case <-deadline.C:
			return ask()
		case <-ctx.Done():
			return ask()
		}
	}
	return true
}
