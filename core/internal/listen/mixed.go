package listen

import (
	"bufio"
	"context"
	"io"
	"net/http"

	"github.com/tunneld/tunneld/core/internal/tunnel"
	"github.com/tunneld/tunneld/internal/socks5"
)

var mixedKind = Kind{
	Name:        KindMixed,
	Summary:     "SOCKS4, SOCKS4a, and all that `socks5` and `http` listeners take, told apart by the first byte",
	NamesTarget: true,
	Passwords:   true,
	Plain:       true,
	Foreign: func(string) []byte {
		return httpAnswer(http.StatusBadRequest, requestError, "this port takes SOCKS4, SOCKS5 and HTTP")
	},
	New: func(Settings) Protocol { return mixedProtocol{} },
}

// mixedProtocol is whichever protocol a client begins.
type mixedProtocol struct{}

func (mixedProtocol) Asks() bool { return true }

func (p mixedProtocol) Learn(ctx context.Context, c *Conn) (Request, *Failure) {
	return hear(ctx, p, c, func(s io.ReadWriter) (Request, *Failure) {
		return readMixed(bufio.NewReaderSize(s, headPiece), s, c.prover(ctx))
	})
}

// Refuse waits for the client's first byte, which says how to tell it.
func (mixedProtocol) Refuse(ctx context.Context, c *Conn, err *tunnel.DialError) {
	c.refuseHeard(ctx, headPiece, func(r *bufio.Reader, w io.Writer) []byte {
		first, fail := firstByte(r)
		switch {
		case fail != nil:
			return nil
		case first == socks4Version:
			return socks4Replies.refusal(err)
		case first == socks5.Version:
			return refuseSOCKS5(r, w, c.login != nil, err)
		case beginsHTTP(first):
			return httpRefusal(err)
		}
		return wrongProtocol(mixedKind, first).Answer
	})
}

func readMixed(r *bufio.Reader, w io.Writer, prove prover) (Request, *Failure) {
	first, fail := firstByte(r)
	switch {
	case fail != nil:
		return Request{}, fail
	case first == socks4Version:
		return readSOCKS4(r, prove)
	case first == socks5.Version:
		return readSOCKS5(r, w, prove)
	case beginsHTTP(first):
		return readHTTP(r, prove, mixedKind)
	}
	return Request{}, wrongProtocol(mixedKind, first)
}

// beginsHTTP says whether a request may begin with that byte, or an empty line before it (RFC
// 9112, section 2.2).
func beginsHTTP(first byte) bool { return httpKind.Begins(first) || first == '\r' || first == '\n' }

// firstByte is a client's first byte, which r keeps. Nobody can be told what is wrong as long
// as it has not come.
func firstByte(r *bufio.Reader) (byte, *Failure) {
	b, err := r.Peek(1)
	switch {
	case left(err):
		return 0, &Failure{Err: ErrNothing}
	case err != nil:
		return 0, &Failure{Err: err}
	}
	return b[0], nil
}
