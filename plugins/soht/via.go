package soht

import (
	"context"
	"errors"
	"net"
	"os"
	"sync/atomic"
	"time"

	"github.com/tunneld/tunneld/plugins/sdk"
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

// asking makes the connections ones to the HTTP proxy at this address that is
// asked for a tunnel first, and has as long as limit to answer.
func (dial dialFunc) asking(proxy string, limit time.Duration) dialFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		if err := conn.SetDeadline(time.Now().Add(limit)); err != nil {
			_ = conn.Close()
			return nil, err
		}
		return &askingConn{Conn: conn, proxy: proxy, limit: limit}, nil
	}
}

// askingConn bounds the exchange that it begins with: CONNECT is written, its
// answer read, and what is written next is the tunnel's. net/http (1.26) gives
// the answer a minute, also where the request's context has ended.
type askingConn struct {
	net.Conn
	proxy string
	limit time.Duration
	state atomic.Int32
}

// The states of an askingConn.
const (
	asked = iota
	answering
	tunnelled
)

func (c *askingConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	switch {
	case err == nil:
		c.state.CompareAndSwap(asked, answering)
	case c.state.Load() != tunnelled:
		err = unanswered(c.proxy, c.limit, err)
	}
	return n, err
}

func (c *askingConn) Write(b []byte) (int, error) {
	if c.state.CompareAndSwap(answering, tunnelled) {
		if err := c.SetDeadline(time.Time{}); err != nil {
			return 0, err
		}
	}
	return c.Conn.Write(b)
}

// unanswered is a CONNECT whose answer did not come, or not to its end.
func unanswered(proxy string, limit time.Duration, cause error) *Error {
	e := &Error{
		Action: connect, Reason: sdk.ReasonUnavailable, Err: ErrExchange,
		Message: "the HTTP proxy at " + proxy + " broke off instead of answering CONNECT: " + cause.Error(),
		Hint:    "check that via is an HTTP proxy, and see its log",
	}
	if errors.Is(cause, os.ErrDeadlineExceeded) {
		e.Reason = sdk.ReasonTimeout
		e.Message = "the HTTP proxy at " + proxy + " did not answer CONNECT within " + limit.String()
		e.Hint = "check that via is an HTTP proxy and that it reaches the SOHT server, or raise timeouts.handshake"
	}
	return e
}
