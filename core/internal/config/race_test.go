//go:build race

package config

import "testing"

// editStride thins the edits out: one goroutine makes them all, and the race
// detector has nothing to find but makes them ten times slower.
const editStride = 37

// withoutRace skips a test of large inputs, for the same reason.
func withoutRace(t *testing.T) {
	t.Helper()
	t.Skip("one goroutine parses large inputs: nothing for the race detector, and minutes with it")
}
