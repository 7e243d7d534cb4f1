package listen

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/tunneld/tunneld/core/internal/tunnel"
	"github.com/tunneld/tunneld/internal/bare"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// Conn is a client's connection from its accept until the pump has it. A bare
// socket stays one, which costs least, as long as nobody talks on it. It is not
// safe for concurrent use.
type Conn struct {
	socket    *bare.Socket // nil once it is talked on
	stream    stream       // that it is talked on
	handshake time.Duration
	until     time.Time             // the end of the handshake's time, once it has begun; zero: none
	login     Login                 // nil: nobody is asked
	held      func(bytes int) error // HandshakeOptions.Hold
	unwatch   func() bool           // ends the watch over the context
}

// stream is a connection that can be talked on and closed such that the last
// bytes arrive.
type stream interface {
	io.ReadWriteCloser
	SetDeadline(time.Time) error
	CloseWrite() error
}

// HalfCloser is a connection of which one direction can end alone.
type HalfCloser interface {
	net.Conn
	CloseWrite() error
}

// NewConn takes over an accepted socket.
func NewConn(s *bare.Socket) *Conn { return &Conn{socket: s} }

// NewStreamConn takes over a connection that is not a bare socket: a *net.TCPConn,
// or one around it that names it by NetConn, as TLS does.
func NewStreamConn(c HalfCloser) *Conn { return &Conn{stream: c} }

// Talk makes the connection ready for a handshake that a tunnel may follow: the
// handshake's time begins, and from now on ctx resets the connection. It takes a
// descriptor beside the socket's own. On an error the client can still be refused.
// Another call goes on with the time of the first.
func (c *Conn) Talk(ctx context.Context) (io.ReadWriter, error) {
	if c.socket != nil {
		s := c.socket.Stream()
		c.socket, c.stream = nil, s
		tcp, err := s.TCPConn()
		if err != nil {
			return nil, err
		}
		c.stream = tcp
	}
	c.watch(ctx)
	if c.handshake > 0 && c.until.IsZero() {
		c.until = time.Now().Add(c.handshake)
		if err := c.stream.SetDeadline(c.until); err != nil {
			return nil, err
		}
	}
	return c.stream, nil
}

// talkLast makes the connection ready for an answer that ends it, which takes no
// descriptor. ctx resets the connection.
func (c *Conn) talkLast(ctx context.Context) stream {
	if c.socket != nil {
		c.socket, c.stream = nil, c.socket.Stream()
	}
	c.watch(ctx)
	return c.stream
}

func (c *Conn) watch(ctx context.Context) {
	if c.unwatch == nil {
		s := c.stream
		c.unwatch = context.AfterFunc(ctx, func() { reset(s) })
	}
}

// forget ends the watch over the context. It returns false where that has reset
// the connection.
func (c *Conn) forget() bool {
	if c.unwatch == nil {
		return true
	}
	ended := c.unwatch()
	c.unwatch = nil
	return ended
}

// hold takes that many more bytes of memory for the handshake.
func (c *Conn) hold(bytes int) error {
	if c.held == nil {
		return nil
	}
	return c.held(bytes)
}

// heard ends the time of the handshake.
func (c *Conn) heard() error {
	if c.handshake == 0 {
		return nil
	}
	return c.stream.SetDeadline(time.Time{})
}

// Say tells the client something good. On an error the connection has been closed.
func (c *Conn) Say(b []byte) error {
	err := c.stream.SetDeadline(time.Now().Add(answerTime))
	if err == nil {
		_, err = c.stream.Write(b)
	}
	if err == nil {
		err = c.stream.SetDeadline(time.Time{})
	}
	if err != nil {
		c.Reset()
		return fmt.Errorf("answer client: %w", err)
	}
	return nil
}

const (
	// answerTime bounds how long a client may take to receive an answer.
	answerTime = 5 * time.Second
	// lingerTime bounds how long a refused client is listened to: closing with
	// unread bytes would reset the connection, and the reset could overtake the
	// answer. What it sends meanwhile is read and forgotten.
	lingerTime = time.Second
)

// CloseWith writes a last answer and closes the connection such that it arrives.
// An empty answer is for a client that is gone, and so are errors.
func (c *Conn) CloseWith(ctx context.Context, answer []byte) {
	s := c.talkLast(ctx)
	if len(answer) > 0 && s.SetDeadline(time.Now().Add(answerTime)) == nil {
		if _, err := s.Write(answer); err == nil {
			c.Close(ctx)
			return
		}
	}
	_ = s.Close() // it is gone, whatever that returns
}

// Close closes the connection such that what was written arrives.
func (c *Conn) Close(ctx context.Context) {
	s := c.talkLast(ctx)
	defer s.Close()
	if err := s.SetDeadline(time.Now().Add(lingerTime)); err != nil {
		return
	}
	if err := s.CloseWrite(); err != nil {
		return
	}
	drop(s)
}

// drop reads until there is an error.
func drop(r io.Reader) {
	// Many clients may be answered at one time: a small buffer each.
	var forgotten [512]byte
	for {
		if _, err := r.Read(forgotten[:]); err != nil {
			return
		}
	}
}

// Reset closes the connection so that its peer is reset before it has read a byte.
func (c *Conn) Reset() {
	if c.socket != nil {
		c.socket.Reset()
		return
	}
	reset(c.stream)
}

func reset(s stream) {
	if s, ok := s.(bare.Stream); ok {
		s.Reset()
		return
	}
	bare.Reset(s.(net.Conn)) // there are no others
}

// Gone says whether the connection was reset. The end of what the client sends is
// no such sign, and not every system can tell.
func (c *Conn) Gone() bool {
	if c.socket != nil {
		return c.socket.Gone()
	}
	conn, ok := c.stream.(net.Conn)
	return ok && bare.Gone(conn)
}

// End hands the connection over to the pump.
func (c *Conn) End() tunnel.End {
	if c.socket != nil {
		return tunnel.End{Socket: c.socket}
	}
	return tunnel.End{Stream: c.stream.(net.Conn)} // Talk has made it one
}

// hear learns what a client asks for from what it says on the connection itself.
func hear(ctx context.Context, p Protocol, c *Conn, read func(io.ReadWriter) (Request, *Failure)) (Request, *Failure) {
	s, err := c.Talk(ctx)
	if err != nil {
		p.Refuse(ctx, c, &tunnel.DialError{
			Stage:   pluginv1.Stage_STAGE_CONNECT,
			Reason:  pluginv1.Reason_REASON_UNAVAILABLE,
			Message: err.Error(),
			Hint:    Hint(err),
		})
		return Request{}, &Failure{Err: err}
	}
	r, fail := read(s)
	if fail == nil {
		if err := c.heard(); err != nil {
			fail = &Failure{Err: err}
		}
	}
	return r, fail
}

// refuseHeard ends a connection with an answer that depends on what the client says, which
// is read through a buffer of that size. The client has answerTime for it.
func (c *Conn) refuseHeard(ctx context.Context, buffer int, answer func(*bufio.Reader, io.Writer) []byte) {
	s := c.talkLast(ctx)
	if err := s.SetDeadline(time.Now().Add(answerTime)); err != nil {
		c.Reset()
		return
	}
	c.CloseWith(ctx, answer(bufio.NewReaderSize(s, buffer), s))
}
