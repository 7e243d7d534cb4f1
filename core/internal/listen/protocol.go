package listen

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/tunneld/tunneld/core/internal/tunnel"
)

// Protocol is what a listener speaks with a client until its target is known. A
// value serves any number of clients at once.
type Protocol interface {
	// Asks says whether clients have something to say before their target is
	// known. As long as they have not said it they are in their handshake, and may
	// have to make room for others.
	Asks() bool
	// Learn hears a client out. It says nothing good yet. It may block; it returns
	// soon after ctx is done.
	Learn(ctx context.Context, c *Conn) (Request, *Failure)
	// Refuse tells a client that was not heard why it gets no tunnel, and ends c.
	Refuse(ctx context.Context, c *Conn, err *tunnel.DialError)
}

// Request is what a client asks for.
type Request struct {
	// Target is where the client wants to go. A name is as the client wrote it:
	// nobody has resolved it. Denied, unless nil, says why no client may name this
	// target: the client is to be refused with it.
	Target tunnel.Target
	Denied *tunnel.DialError
	// User is who the client has shown to be; empty: nobody. A tunnel holds on to the
	// text: it is no part of a longer one.
	User string
	// Ahead is what was read behind the handshake, the tunnel's first bytes.
	Ahead []byte
	// Plain says that the client does not want a tunnel: it sends HTTP requests, of which
	// Ahead has the first bytes, each with a target of its own. See Client.Server. There is
	// neither a Target nor a Responder.
	Plain bool
	// Responder is how the client learns the outcome.
	Responder Responder
}

// Responder tells one client whether it has its tunnel: one of the methods is
// called, once. Both may block and fail; they return soon after ctx is done.
type Responder interface {
	// Ready tells the client that it is connected, and returns its side of the
	// tunnel without Request.Ahead. It may be another connection than c, which is
	// the responder's then. On an error c has been ended.
	Ready(ctx context.Context, c *Conn) (tunnel.End, error)
	// Refuse tells the client why it is not connected, and ends c.
	Refuse(ctx context.Context, c *Conn, err *tunnel.DialError)
}

// Failure is a handshake that has failed.
type Failure struct {
	Err error
	// Answer is the last that the client hears. It is empty where the client is
	// gone. Answered says that it has heard from somebody else why it is refused,
	// Reset that its protocol has no word for that.
	Answer   []byte
	Answered bool
	Reset    bool
}

// mistake is an error of a client that its user can put right: hint says how.
type mistake struct{ text, hint string }

// Error returns the text without the hint.
func (m *mistake) Error() string { return m.text }

// ErrNothing is what a client's handshake ends with that has closed or reset its
// connection before it sent a byte: a probe of the port, or a client that has changed
// its mind.
var ErrNothing = errors.New("the client left without sending anything")

// left says whether err, of a client's first read, is that it has left. Within TLS that may
// be without a close_notify.
func left(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET)
}

// Client is a client whose target is known and which waits for the answer, or one that is
// Plain. Of the first one of Ready, Refuse and Reset is called, once.
type Client struct {
	Request
	conn *Conn
}

// HandshakeOptions are what a listener asks of its clients before they get a tunnel.
// The zero value asks nothing.
type HandshakeOptions struct {
	// Timeout bounds what a client has to say, from its first byte to its last; 0
	// means no bound.
	Timeout time.Duration
	// TLS is spoken before all else, within the same time; nil: it is not.
	TLS *TLSOptions
	// Login has clients send a user and a password, which it checks; nil: nobody is
	// asked. It is for protocols of kinds that have Passwords.
	Login Login
	// Hold takes that many more bytes of memory for the handshake, until it is over: also for
	// the heads of the requests of a client that is Plain, until Gateway.Begin. Its
	// error ends the handshake. nil: what it needs is not bounded in sum.
	Hold func(bytes int) error
}

// Handshake learns what a client asks for. On an error the client has been answered in
// its own protocol, and c is closed. ctx breaks off what the client has to say, or to
// read, until it was answered: it is reset.
func Handshake(ctx context.Context, p Protocol, c *Conn, o HandshakeOptions) (*Client, error) {
	c.handshake, c.login, c.held = o.Timeout, o.Login, o.Hold
	r, fail := c.learn(ctx, p, o.TLS)
	if fail != nil {
		defer c.forget()
		switch {
		case fail.Reset:
			c.Reset()
		case fail.Answered:
			c.Close(ctx)
		default:
			c.CloseWith(ctx, fail.Answer)
		}
		return nil, fmt.Errorf("client handshake: %w", fail.Err)
	}
	return &Client{r, c}, nil
}

// learn speaks TLS, if that is wanted, and hears the client out. Who shows a certificate,
// and a password as well, is who the password says.
func (c *Conn) learn(ctx context.Context, p Protocol, o *TLSOptions) (Request, *Failure) {
	if o == nil {
		return p.Learn(ctx, c)
	}
	user, fail := c.secure(ctx, o)
	if fail != nil {
		return Request{}, fail
	}
	r, fail := p.Learn(ctx, c)
	if fail == nil {
		r.User = cmp.Or(r.User, user)
		if err := c.heard(); err != nil {
			fail = &Failure{Err: err}
		}
	}
	return r, fail
}

// Gone says whether the client has left: its connection was reset. The end of
// what it sends is no such sign, and not every system can tell.
func (c *Client) Gone() bool { return c.conn.Gone() }

var errBrokenOff = errors.New("answer client: broken off")

// Ready tells the client that it is connected and returns its side of the tunnel.
// On an error that has been closed.
func (c *Client) Ready(ctx context.Context) (tunnel.End, error) {
	end, err := c.Responder.Ready(ctx, c.conn)
	brokenOff := !c.conn.forget()
	if err != nil {
		return tunnel.End{}, err
	}
	if brokenOff {
		end.Abandon(errBrokenOff.Error())
		return tunnel.End{}, errBrokenOff
	}
	end.ReadAhead = c.Ahead
	return end, nil
}

// Refuse tells the client, in its own protocol, why it is not connected, and
// closes the connection. It blocks until the client has closed its side, but no
// longer than answerTime and lingerTime.
func (c *Client) Refuse(ctx context.Context, err *tunnel.DialError) {
	defer c.conn.forget()
	c.Responder.Refuse(ctx, c.conn, err)
}

// Reset breaks the connection off, without a word.
func (c *Client) Reset() {
	c.conn.forget()
	c.conn.Reset()
}

// Refuse answers a client beyond a limit, whose handshake was not even begun. It
// blocks as Client's does, and as long as a client takes to ask that hears nothing
// before, but no longer than answerTime. ctx breaks that off. Of a user and a password it
// takes whatever comes, and checks nothing: the client gets no tunnel anyway.
func Refuse(ctx context.Context, p Protocol, c *Conn, o HandshakeOptions, err *tunnel.DialError) {
	c.login = o.Login
	defer c.forget()
	p.Refuse(ctx, c, err)
}

// replies is a Responder of a protocol that says a few bytes.
type replies struct {
	ready   []byte
	refusal func(*tunnel.DialError) []byte
}

func (r replies) Ready(_ context.Context, c *Conn) (tunnel.End, error) {
	if err := c.Say(r.ready); err != nil {
		return tunnel.End{}, err
	}
	return c.End(), nil
}

func (r replies) Refuse(ctx context.Context, c *Conn, err *tunnel.DialError) {
	c.CloseWith(ctx, r.refusal(err))
}

// ask is the Request of a client that names its target.
func ask(host string, port uint16, ahead []byte, r Responder) Request {
	target, denied := named(host, port)
	return Request{Target: target, Denied: denied, Ahead: ahead, Responder: r}
}

// broken says that err is the connection's own: the client cannot be answered.
func broken(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && !errors.Is(err, os.ErrDeadlineExceeded)
}
