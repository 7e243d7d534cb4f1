//go:build race

package azrelay_test

const raceEnabled = true
