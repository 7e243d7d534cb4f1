//go:build unix && !linux

package sdk

import "time"

// setUserTimeout does nothing: the option is Linux's.
func setUserTimeout(int, time.Duration) error { return nil }
