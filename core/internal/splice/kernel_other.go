//go:build !linux

package splice

import (
	"net"
	"time"
)

// kernel is the pump that this system does not have.
type kernel struct{}

func (*kernel) init(*counter, *lineCheck, time.Time) error { return nil }

func (*kernel) start(*Tunnel) bool { return false }

func (*kernel) stats(*Stats) {}

func (*kernel) measure() {}

func (*kernel) kill() {}

func (*kernel) close() error { return nil }

// pause is a worker's.
type pause struct{}

// fit does nothing here.
func fit(net.Conn) {}

// isCut is not to be known here.
func isCut(net.Conn) bool { return false }
