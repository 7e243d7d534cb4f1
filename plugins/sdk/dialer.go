package sdk

import (
	"net"
	"syscall"
	"time"
)

// Dialer returns a dialer that sets the request's socket options on each TCP
// connection it makes. It has no timeout of its own: bound it with a context.
// Nodelay is on until the connection is handed over and as asked for from then
// on, since a handshake must not wait.
func (r *Request) Dialer() *net.Dialer {
	o := r.Options
	d := &net.Dialer{KeepAlive: -1}
	if o.KeepaliveIdle > 0 {
		d.KeepAliveConfig = net.KeepAliveConfig{
			Enable:   true,
			Idle:     o.KeepaliveIdle,
			Interval: orSystem(o.KeepaliveInterval),
			Count:    int(orSystem(time.Duration(o.KeepaliveCount))),
		}
	}
	if o.UserTimeout > 0 {
		d.Control = func(network, _ string, c syscall.RawConn) error {
			if len(network) < 3 || network[:3] != "tcp" {
				return nil
			}
			var sockErr error
			if err := c.Control(func(fd uintptr) { sockErr = setUserTimeout(int(fd), o.UserTimeout) }); err != nil {
				return err
			}
			return sockErr
		}
	}
	return d
}

// orSystem turns our zero into net's mark for "leave it to the system".
func orSystem(d time.Duration) time.Duration {
	if d <= 0 {
		return -1
	}
	return d
}
