package sdk

import "net"

// Dialer returns a dialer that sets the request's socket options on each TCP
// connection it makes. It has no timeout of its own: bound it with a context.
// Nodelay is on until the connection is handed over and as asked for from then
// on, since a handshake must not wait.
func (r *Request) Dialer() *net.Dialer { return r.Options.Dialer() }
