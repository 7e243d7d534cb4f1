// Package sockopt sets the options of TCP sockets that a configuration can name. It
// opens no sockets.
package sockopt

import (
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"
)

// Options are set on a TCP socket. Zero durations and counts mean the system's
// default, a zero KeepaliveIdle no keep-alive at all. The system rounds the
// durations to whole seconds, UserTimeout to milliseconds.
type Options struct {
	Nodelay           bool
	KeepaliveIdle     time.Duration
	KeepaliveInterval time.Duration
	KeepaliveCount    int
	// UserTimeout is how long sent bytes may stay unacknowledged (RFC 5482);
	// Linux only, elsewhere without effect.
	UserTimeout time.Duration
}

// Apply sets the options on a connected socket. The first error does not keep
// the other options from being set.
func (o Options) Apply(c *net.TCPConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return fmt.Errorf("set socket options: %w", err)
	}
	return errors.Join(
		c.SetNoDelay(o.Nodelay),
		c.SetKeepAliveConfig(o.keepAlive()),
		o.Control("", "", raw),
	)
}

// Dialer returns a dialer whose TCP connections have the options set, but for
// Nodelay, which is Go's default and needs Apply to be switched off.
func (o Options) Dialer() *net.Dialer {
	return &net.Dialer{KeepAlive: -1, KeepAliveConfig: o.keepAlive(), Control: o.Control}
}

// Control sets what the net package has no call for, in the form that
// net.Dialer and net.ListenConfig take.
func (o Options) Control(network, _ string, c syscall.RawConn) error {
	if o.UserTimeout <= 0 || network == "unix" {
		return nil
	}
	var err error
	if controlErr := c.Control(func(fd uintptr) { err = setUserTimeout(fd, o.UserTimeout) }); controlErr != nil {
		return fmt.Errorf("set socket options: %w", controlErr)
	}
	return err
}

func (o Options) keepAlive() net.KeepAliveConfig {
	if o.KeepaliveIdle <= 0 {
		return net.KeepAliveConfig{}
	}
	return net.KeepAliveConfig{
		Enable:   true,
		Idle:     o.KeepaliveIdle,
		Interval: orSystem(o.KeepaliveInterval),
		Count:    int(orSystem(time.Duration(o.KeepaliveCount))),
	}
}

// orSystem turns zero into what the net package takes for "leave it alone".
func orSystem(d time.Duration) time.Duration {
	if d <= 0 {
		return -1
	}
	return d
}
