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

	"github.com/tunneld/tunneld/core/internal/tunnel"
	"github.com/tunneld/tunneld/internal/bare"
	"github.com/tunneld/tunneld/internal/proxyheader"
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
	wordless
	target tunnel.Target
	waits  bool // for the client's first byte
}

func (p *tcpProtocol) Asks() bool { return p.waits }

func (p *tcpProtocol) Learn(ctx context.Context, c *Conn) (Request, *Failure) {
	if p.waits {
		return hear(ctx, p, c, func(s io.ReadWriter) (Request, *Failure) { return p.await(s, c.headless) })
	}
	return Request{Target: p.target, Responder: p}, nil
}

// errSilent is of a client that was to speak first, and has not.
var errSilent = fmt.Errorf("the client sent nothing: %w", os.ErrDeadlineExceeded)

// await waits until the client has sent something, which must be no PROXY header if that is
// said.
func (p *tcpProtocol) await(c io.Reader, headless bool) (Request, *Failure) {
	first, ahead, err := firstBytes(c)
	switch {
	case left(err):
		return Request{}, &Failure{Err: ErrNothing}
	case errors.Is(err, os.ErrDeadlineExceeded):
		return Request{}, &Failure{Err: errSilent, Reset: true}
	case err != nil:
		return Request{}, &Failure{Err: err, Reset: true}
	}
	if is, _ := proxyheader.Begins(first); is && headless {
		return Request{}, unwantedHeader()
	}
	return Request{Target: p.target, Ahead: ahead, Responder: p}, nil
}

// firstSize is how much is read of a client's first bytes, where they have to be read: what
// most protocols begin with, so that it goes on in one piece.
const firstSize = 2 << 10

// firstBytes waits for the first bytes. It leaves those of a TCP connection where they
// are, so that the pump takes them with all others, and returns some of them as first. Of
// one that is wrapped it returns as ahead what it had to read.
func firstBytes(c io.Reader) (first, ahead []byte, err error) {
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		ahead = make([]byte, firstSize)
		n, err := io.ReadAtLeast(c, ahead, 1)
		return nil, ahead[:n:n], err
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return nil, nil, err
	}
	first, n := make([]byte, proxyheader.Beginning), 0
	waitErr := raw.Read(func(fd uintptr) bool {
		n, err = bare.Peek(fd, first)
		return !errors.Is(err, syscall.EAGAIN)
	})
	return first[:n], nil, cmp.Or(waitErr, err)
}
