//go:build race

package config

// editStride thins the edits out: one goroutine makes them all, and the race
// detector has nothing to find but makes them ten times slower.
const editStride = 7
