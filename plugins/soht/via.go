package soht

import (
	"context"
	"net"
	"sync/atomic"
)

// dialFunc connects as net.Dialer's DialContext does.
type dialFunc func(ctx context.Context, network, address string) (net.Conn, error)

// marked makes the connections ones that use can be asked about.
func (dial dialFunc) marked() dialFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &markedConn{Conn: conn}, nil
	}
}

// markedConn knows whether it has carried a request. The transport's own word
// for a connection used again, Reused, covers those that waited unused.
type markedConn struct {
	net.Conn
	used atomic.Bool
}

// use notes that c carries a request and says whether it had carried one before.
func use(c net.Conn) bool {
	m, ok := c.(*markedConn)
	return ok && m.used.Swap(true)
}
