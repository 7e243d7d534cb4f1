package sdk

import (
	"net"
	"strings"
	"syscall"
)

// Dialer returns a dialer that sets the request's socket options on each TCP
// connection it makes. It has no timeout of its own: bound it with a context.
// Nodelay is on until the connection is handed over and as asked for from then
// on, since a handshake must not wait.
//
// On Linux each TCP connection is watched until it is closed, for as long as the
// process lives: where the far end's system acknowledges nothing for three
// minutes of what it was sent, the line is dead and the connection is reset. All
// of this is the dialer's Control, which is not to be replaced.
func (r *Request) Dialer() *net.Dialer {
	d := r.Options.Dialer()
	if r.watch == nil {
		return d
	}
	options := d.Control
	d.Control = func(network, address string, c syscall.RawConn) error {
		if strings.HasPrefix(network, "tcp") {
			r.watch(address, c)
		}
		return options(network, address, c)
	}
	return d
}
