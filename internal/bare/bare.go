// Package bare accepts and dials TCP sockets that Go's poller does not know. A
// tunnel's sockets are watched by the pump alone: what net does for each, to
// watch it, to ask for its addresses, to set options that a listening socket
// passes on anyway, costs more than the tunnel itself. On Linux a Socket is a
// descriptor; elsewhere it is a net.TCPConn behind the same methods.
package bare

import (
	"context"
	"net"
)

// Conn hands the socket over to net. The Socket must not be used again, also
// after an error, which has closed it.
func (s *Socket) Conn() (*net.TCPConn, error) { return s.conn() }

func listenTCP(ctx context.Context, address string) (*net.TCPListener, error) {
	lc := net.ListenConfig{KeepAlive: -1}
	// Go's default is a listener of Multipath TCP, which passes no options on
	// and whose connections are not spliced.
	lc.SetMultipathTCP(false)
	ln, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return ln.(*net.TCPListener), nil
}
