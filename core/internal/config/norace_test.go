//go:build !race

package config

import "testing"

const editStride = 1

func withoutRace(*testing.T) {}
