//go:build !linux

package sockopt

import "time"

func setUserTimeout(uintptr, time.Duration) error { return nil }
