package listen

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"

	"github.com/tunneld/tunneld/core/internal/tunnel"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// When a tcp listener dials: at once, or for clients that have sent something.
const (
	onAccept    = "accept"
	onFirstByte = "first_byte"
)

var tcpKind = Kind{
	Name:    KindTCP,
	Summary: "all connections go to one target",
	Attributes: []*pluginv1.Attribute{
		{Name: "target", Type: &pluginv1.Type{Kind: pluginv1.Kind_KIND_STRING}, Required: true},
		{Name: "dial_on", Type: &pluginv1.Type{Kind: pluginv1.Kind_KIND_STRING, OneOf: []string{onAccept, onFirstByte}}, DefaultJson: `"` + onAccept + `"`},
	},
	New: func(s Settings) Protocol {
		return &tcpProtocol{target: s.Target, waits: s.Values["dial_on"] == onFirstByte}
	},
}

// tcpProtocol has nothing to say: all clients go to one target, and are reset
// where there is no way to it.
type tcpProtocol struct {
	target tunnel.Target
	waits  bool // for the client's first byte
}

func (p *tcpProtocol) Asks() bool { return p.waits }

func (p *tcpProtocol) Learn(ctx context.Context, c *Conn) (Request, *Failure) {
	if p.waits {
		return hear(ctx, p, c, p.await)
	}
	return Request{Target: p.target, Responder: p}, nil
}

// errSilent is of a client that was to speak first, and has not.
var errSilent = fmt.Errorf("the client sent nothing: %w", os.ErrDeadlineExceeded)

// await waits until the client has sent something.
func (p *tcpProtocol) await(c io.ReadWriter) (Request, *Failure) {
	ahead, err := firstBytes(c)
	switch {
	case left(err):
		return Request{}, &Failure{Err: ErrNothing}
	case errors.Is(err, os.ErrDeadlineExceeded):
		return Request{}, &Failure{Err: errSilent, Reset: true}
	case err != nil:
		return Request{}, &Failure{Err: err, Reset: true}
	}
	return Request{Target: p.target, Ahead: ahead, Responder: p}, nil
}

// firstSize is how much is read of a client's first bytes, where they have to be read: what
// most protocols begin with, so that it goes on in one piece.
const firstSize = 2 << 10

// firstBytes waits for the first bytes. It leaves those of a socket where they are, so that
// the pump takes them with all others, and returns what it had to read of a connection
// that is wrapped.
func firstBytes(c io.Reader) (ahead []byte, err error) {
	var socket syscall.Conn
	switch c := c.(type) {
	case *net.TCPConn:
		socket = c
	case *net.UnixConn:
		socket = c
	default:
		first := make([]byte, firstSize)
		n, err := io.ReadAtLeast(c, first, 1)
		return first[:n:n], err
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return nil, err
	}
	waitErr := raw.Read(func(fd uintptr) bool {
		err = peek(int(fd))
		return !errors.Is(err, syscall.EAGAIN)
	})
	if waitErr != nil {
		return nil, waitErr
	}
	return nil, err
}

// peek returns nil if the next read of a socket has a byte, and otherwise its error.
func peek(fd int) error {
	for {
		var first [1]byte
		n, _, err := syscall.Recvfrom(fd, first[:], syscall.MSG_PEEK)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return os.NewSyscallError("recvfrom", err)
		case n == 0:
			return io.EOF
		default:
			return nil
		}
	}
}

func (*tcpProtocol) Ready(_ context.Context, c *Conn) (tunnel.End, error) { return c.End(), nil }

func (*tcpProtocol) Refuse(_ context.Context, c *Conn, _ *tunnel.DialError) { c.Reset() }
