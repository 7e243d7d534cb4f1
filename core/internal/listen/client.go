package listen

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/tunneld/tunneld/core/internal/tunnel"
	"github.com/tunneld/tunneld/internal/bare"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// Client is a connection whose target is known and which waits for the answer.
// Either Accept or Refuse is called, once.
type Client interface {
	// Target is where the client wants to go. A name is as the client wrote it:
	// nobody has resolved it. The error says why no client may name this target:
	// who called refuses the client with it.
	Target() (tunnel.Target, *tunnel.DialError)
	// Gone says whether the client has left: its connection was reset. The end of
	// what it sends is no such sign, and not every system can tell.
	Gone() bool
	// Accept tells the client that it is connected and returns what the pump
	// needs: the connection, and what the handshake read too far. On an error
	// the connection has been closed.
	Accept() (end End, ahead []byte, err error)
	// Refuse tells the client, in its own protocol, why it is not connected,
	// and closes the connection. It blocks until the client has closed its side,
	// but no longer than answerTime and lingerTime.
	Refuse(*tunnel.DialError)
}

// End is the client's side of a tunnel: a bare socket, or else a connection.
type End struct {
	Socket *bare.Socket
	Conn   net.Conn
}

// The kinds of listeners.
const (
	KindTCP    = "tcp"
	KindSOCKS5 = "socks5"
	KindHTTP   = "http"
)

// ErrNothing is what a client's handshake ends with that has closed before it
// sent a byte: a probe of the port, or a client that has changed its mind.
var ErrNothing = errors.New("the client closed without a word")

// failure is a handshake that has failed, and what the client is told of it;
// an empty answer is a client that is gone.
type failure struct {
	err    error
	answer []byte
}

// Handshake learns a client's target in the way of the listener's kind. fixed is
// the target of a tcp listener; timeout bounds what the client has to say, from
// its first byte to its last, 0 means no bound. On an error the client has been
// answered in its own protocol, and its connection is closed. ctx breaks off what
// the client has to say, or to read: it is reset.
func Handshake(ctx context.Context, kind string, s *bare.Socket, fixed tunnel.Target, timeout time.Duration) (Client, error) {
	if kind == KindTCP {
		return &tcpClient{socket: s, target: fixed}, nil
	}
	st := s.Stream()
	c, err := st.TCPConn()
	if err != nil {
		refuse(ctx, kind, st, &tunnel.DialError{
			Stage:   pluginv1.Stage_STAGE_CONNECT,
			Reason:  pluginv1.Reason_REASON_UNAVAILABLE,
			Message: err.Error(),
			Hint:    Hint(err),
		})
		return nil, fmt.Errorf("client handshake: %w", err)
	}
	unwatch := context.AfterFunc(ctx, func() { Reset(c) })
	if timeout > 0 {
		if err := c.SetDeadline(time.Now().Add(timeout)); err != nil {
			unwatch()
			Reset(c)
			return nil, fmt.Errorf("client handshake: %w", err)
		}
	}
	var (
		a    asked
		fail *failure
	)
	switch kind {
	case KindSOCKS5:
		a, fail = readSOCKS5(c)
	case KindHTTP:
		a, fail = readHTTP(c)
	default:
		fail = &failure{err: fmt.Errorf("listener kind %q is not known", kind)}
	}
	if fail != nil {
		defer unwatch()
		tell(c, fail.answer)
		return nil, fmt.Errorf("client handshake: %w", fail.err)
	}
	if err := c.SetDeadline(time.Time{}); err != nil {
		unwatch()
		Reset(c)
		return nil, fmt.Errorf("client handshake: %w", err)
	}
	return &proxyClient{conn: c, asked: a, http: kind == KindHTTP, unwatch: unwatch}, nil
}

// asked is what a handshake has learned.
type asked struct {
	target tunnel.Target
	denied *tunnel.DialError // why no client may name it
	ahead  []byte            // what was read behind it, the tunnel's first bytes
}

func ask(host string, port uint16, ahead []byte) asked {
	target, denied := named(host, port)
	return asked{target, denied, ahead}
}

// proxyClient is a client that has said where it wants to go, and in which
// protocol it is answered.
type proxyClient struct {
	conn *net.TCPConn
	asked
	http    bool
	unwatch func() bool // ends the watch over the handshake's context
}

func (c *proxyClient) Target() (tunnel.Target, *tunnel.DialError) { return c.target, c.denied }

func (c *proxyClient) Gone() bool { return bare.Gone(c.conn) }

func (c *proxyClient) Accept() (End, []byte, error) {
	answer := socksReady
	if c.http {
		answer = httpReady
	}
	err := accept(c.conn, answer)
	if !c.unwatch() && err == nil {
		err = errBrokenOff
	}
	if err != nil {
		return End{}, nil, err
	}
	return End{Conn: c.conn}, c.ahead, nil
}

var errBrokenOff = errors.New("answer client: broken off")

func (c *proxyClient) Refuse(err *tunnel.DialError) {
	defer c.unwatch()
	if c.http {
		tell(c.conn, httpRefusal(err))
		return
	}
	tell(c.conn, socksReply(answerTo(err.Reason).SOCKS))
}

// Refuse answers a client beyond a limit, whose handshake was not even begun. It
// blocks as Client's does, and as long as a socks5 client takes to ask, but no
// longer than answerTime. ctx breaks that off.
func Refuse(ctx context.Context, kind string, s *bare.Socket, err *tunnel.DialError) {
	if kind == KindTCP {
		s.Reset()
		return
	}
	refuse(ctx, kind, s.Stream(), err)
}

func refuse(ctx context.Context, kind string, c bare.Stream, err *tunnel.DialError) {
	defer context.AfterFunc(ctx, c.Reset)()
	if kind == KindHTTP {
		tell(c, httpRefusal(err))
		return
	}
	// SOCKS has a word for this only in the reply to a request.
	if err := c.SetDeadline(time.Now().Add(answerTime)); err != nil {
		c.Reset()
		return
	}
	answer := socksReply(answerTo(err.Reason).SOCKS)
	if _, fail := readSOCKS5(c); fail != nil {
		answer = fail.answer
	}
	tell(c, answer)
}

type tcpClient struct {
	socket *bare.Socket
	target tunnel.Target
}

func (c *tcpClient) Target() (tunnel.Target, *tunnel.DialError) { return c.target, nil }

func (c *tcpClient) Gone() bool { return c.socket.Gone() }

func (c *tcpClient) Accept() (End, []byte, error) { return End{Socket: c.socket}, nil, nil }

func (c *tcpClient) Refuse(*tunnel.DialError) { c.socket.Reset() }

// Reset closes c so that its peer is reset before it has read a byte.
func Reset(c *net.TCPConn) {
	// Both fail only on a connection that is gone already.
	_ = c.SetLinger(0)
	_ = c.Close()
}

const (
	// answerTime bounds how long a client may take to receive an answer.
	answerTime = 5 * time.Second
	// lingerTime bounds how long a refused client is listened to: closing with
	// unread bytes would reset the connection, and the reset could overtake the
	// answer. What it sends meanwhile is read and forgotten.
	lingerTime = time.Second
)

// told is a connection that can be closed such that its last bytes arrive.
type told interface {
	io.ReadWriteCloser
	SetDeadline(time.Time) error
	CloseWrite() error
}

// tell writes a last answer and closes the connection such that it arrives. An
// empty answer is for a client that is gone, and so are errors.
func tell(c told, answer []byte) {
	defer c.Close()
	if len(answer) == 0 {
		return
	}
	if err := c.SetDeadline(time.Now().Add(answerTime)); err != nil {
		return
	}
	if _, err := c.Write(answer); err != nil {
		return
	}
	if err := c.CloseWrite(); err != nil {
		return
	}
	if err := c.SetDeadline(time.Now().Add(lingerTime)); err != nil {
		return
	}
	// Many clients may be told at one time: a small buffer each.
	var forgotten [512]byte
	for {
		if _, err := c.Read(forgotten[:]); err != nil {
			return
		}
	}
}

// accept writes the answer of a successful dial.
func accept(c *net.TCPConn, answer []byte) error {
	err := c.SetWriteDeadline(time.Now().Add(answerTime))
	if err == nil {
		_, err = c.Write(answer)
	}
	if err == nil {
		err = c.SetWriteDeadline(time.Time{})
	}
	if err != nil {
		Reset(c)
		return fmt.Errorf("answer client: %w", err)
	}
	return nil
}

// broken says that err is the connection's own: the client cannot be told.
func broken(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && !errors.Is(err, os.ErrDeadlineExceeded)
}
