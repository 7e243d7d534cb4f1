package listen

import (
	"net"

	"github.com/tunneld/tunneld/core/internal/tunnel"
)

// Client is a connection whose target is known and which waits for the answer.
// Either Accept or Refuse is called, once.
type Client interface {
	// Target is where the client wants to go.
	Target() tunnel.Target
	// Accept tells the client that it is connected and returns what the pump
	// needs: the bare connection, and what the handshake read too far.
	Accept() (conn net.Conn, ahead []byte, err error)
	// Refuse tells the client, in its own protocol, why it is not connected,
	// and closes the connection.
	Refuse(*tunnel.DialError)
}

// TCP returns the client of a listener whose target is fixed. It has no
// handshake: it is told of a refusal by a reset.
func TCP(c *net.TCPConn, target tunnel.Target) Client { return &tcpClient{conn: c, target: target} }

type tcpClient struct {
	conn   *net.TCPConn
	target tunnel.Target
}

func (c *tcpClient) Target() tunnel.Target { return c.target }

func (c *tcpClient) Accept() (net.Conn, []byte, error) { return c.conn, nil, nil }

func (c *tcpClient) Refuse(*tunnel.DialError) { Reset(c.conn) }

// Reset closes c so that its peer is reset before it has read a byte.
func Reset(c *net.TCPConn) {
	// Both fail only on a connection that is gone already.
	_ = c.SetLinger(0)
	_ = c.Close()
}
