package sdktest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	"github.com/tunneld/tunneld/plugins/sdk"
)

// Path is how a tunnel's bytes travel between the plugin and the daemon.
type Path string

// The paths.
const (
	// PathDirect: the plugin has handed the socket to the far end over (sdk.Direct).
	PathDirect Path = "direct"
	// PathRelay: the plugin pumps (sdk.Relay, sdk.RelayConn).
	PathRelay Path = "relay"
)

// ErrNotClean is what Conn.Read returns in place of io.EOF where the plugin did
// not announce the end of a relay tunnel, or announced an error: the daemon
// would reset its client.
var ErrNotClean = errors.New("the tunnel did not end cleanly")

// Conn is the daemon's end of a tunnel. Whoever dialed closes it. One goroutine may read
// while another writes; the other methods may be called by any.
type Conn struct {
	net.Conn // the socket that was handed over
	// Path is how the bytes travel.
	Path Path
	// Local and Remote are the ends of the plugin's connection, "host:port", or empty.
	Local, Remote string
	// Stages is how long each stage of the dial took, in the order of entry.
	Stages []sdk.StageTime
	// ReadAhead is what came with the answer; Read returns it first.
	ReadAhead []byte

	pending []byte // of ReadAhead, not yet read
	tunnel  *relay // nil on the direct path

	mu             sync.Mutex
	readEOF, wrote bool // the two directions have ended cleanly
	closed         bool
}

// Read reads from the far end. On a relay tunnel io.EOF is the far end's clean
// end, as announced by the plugin; any other end is an error that wraps ErrNotClean.
func (c *Conn) Read(b []byte) (int, error) {
	if len(c.pending) > 0 {
		n := copy(b, c.pending)
		c.pending = c.pending[n:]
		return n, nil
	}
	n, err := c.Conn.Read(b)
	if c.tunnel == nil || err == nil || isTimeout(err) {
		return n, err
	}
	if !errors.Is(err, io.EOF) {
		return n, fmt.Errorf("%w: %w", ErrNotClean, err)
	}
	if err := c.tunnel.confirmEOF(); err != nil {
		return n, fmt.Errorf("%w: %w", ErrNotClean, err)
	}
	c.mu.Lock()
	c.readEOF = true
	c.mu.Unlock()
	return n, io.EOF
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// CloseWrite ends the direction to the far end, as a client's end of file does.
func (c *Conn) CloseWrite() error {
	half, ok := c.Conn.(interface{ CloseWrite() error })
	if !ok {
		return fmt.Errorf("close write: a %T has none", c.Conn)
	}
	if c.tunnel != nil {
		if err := c.tunnel.announceEOF(); err != nil {
			return fmt.Errorf("close write: %w", err)
		}
	}
	c.mu.Lock()
	c.wrote = true
	c.mu.Unlock()
	return half.CloseWrite()
}

// Close ends the tunnel. A relay tunnel of which not both directions have ended
// is aborted, as it is where a client breaks off.
func (c *Conn) Close() error {
	c.mu.Lock()
	clean := c.readEOF && c.wrote
	c.mu.Unlock()
	if clean || c.tunnel == nil {
		return c.end(nil)
	}
	return c.end(func() error { return c.tunnel.abort("closed by the test") })
}

// Abort breaks the tunnel off, as a client's reset does: the far end must not
// see a clean end.
func (c *Conn) Abort(reason string) error {
	return c.end(func() error {
		if c.tunnel != nil {
			return c.tunnel.abort(reason)
		}
		if tcp, ok := c.Conn.(*net.TCPConn); ok {
			return tcp.SetLinger(0)
		}
		return nil
	})
}

// end closes the socket, after what has to be said before.
func (c *Conn) end(before func() error) error {
	c.mu.Lock()
	again := c.closed
	c.closed = true
	c.mu.Unlock()
	if again {
		return net.ErrClosed
	}
	var err error
	if before != nil {
		err = before()
	}
	if c.tunnel != nil {
		c.tunnel.forget()
	}
	return errors.Join(err, c.Conn.Close())
}

// AwaitEnd waits until the plugin has said how a relay tunnel ended: nil for a
// clean end. Before that, CloseWrite and a Read of io.EOF have ended both
// directions.
func (c *Conn) AwaitEnd(ctx context.Context) error {
	if c.tunnel == nil {
		return nil
	}
	return c.tunnel.awaitEnd(ctx)
}
