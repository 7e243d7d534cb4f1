//go:build !linux

package sockopt

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"
)

// tcpKeepIdle is TCP_KEEPIDLE by this system's name.
const tcpKeepIdle = unix.TCP_KEEPALIVE

func setUserTimeout(uintptr, time.Duration) error { return nil }

// LeavePort does nothing here: this system takes a port for all peers.
func LeavePort(uintptr) {}

// Disconnect does nothing here: only code that reads acknowledgements needs it.
func Disconnect(uintptr) error { return errors.ErrUnsupported }

// ReadAcks returns false: this system does not tell.
func ReadAcks(uintptr) (Acks, bool) { return Acks{}, false }
