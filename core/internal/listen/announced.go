package listen

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"github.com/tunneld/tunneld/internal/bare"
	"github.com/tunneld/tunneld/internal/proxyheader"
)

// headerError is of a PROXY header that is wrong, does not come, or should not have come.
type headerError struct {
	text, hint string
	err        error // nil: it is all in the text
}

// Error returns the text.
func (e *headerError) Error() string { return e.text }

// Unwrap returns the cause.
func (e *headerError) Unwrap() error { return e.err }

// Announced reads the PROXY header with which a client begins whose connection a load
// balancer passes on. It leaves all that follows in the socket, which is a bare one again
// then. The handshake's time, if timeout is not 0, begins here and goes on in Handshake. On
// an error the connection was ended: without a word, as the protocol has it. ctx breaks it
// off. It is for a Conn of NewConn, on which nobody has talked.
func (c *Conn) Announced(ctx context.Context, timeout time.Duration) (proxyheader.Header, error) {
	s := c.socket.Stream()
	c.socket, c.stream, c.handshake = nil, s, timeout
	c.watch(ctx)
	header, err := c.header(s)
	if !c.forget() && err == nil {
		err = context.Cause(ctx)
	}
	if err == nil {
		if c.socket, err = s.Socket(); err == nil {
			c.stream = nil
			return header, nil
		}
	}
	if errors.Is(err, ErrNothing) {
		_ = s.Close() // the client is gone, whatever that returns
	} else {
		s.Reset()
	}
	return proxyheader.Header{}, fmt.Errorf("client handshake: %w", err)
}

// header reads the header, and says what is wrong with it.
func (c *Conn) header(s bare.Stream) (proxyheader.Header, error) {
	if err := c.bound(); err != nil {
		return proxyheader.Header{}, err
	}
	header, err := proxyheader.Read(s)
	if err == nil && header.IsLocal() && hasLeft(s) {
		err = io.EOF // a check of the port, and no other client's
	}
	var (
		absent    *proxyheader.AbsentError
		malformed *proxyheader.MalformedError
	)
	const expected = "accept_from of the listener's proxy_protocol block has its address: let it send the header (HAProxy: send-proxy-v2, nginx: proxy_protocol on), or take its address out"
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET):
		err = ErrNothing
	case errors.As(err, &absent):
		err = &headerError{text: "the client sends no PROXY header, but " + recognised(absent.First, nil).Speaks, hint: expected}
	case errors.As(err, &malformed):
		err = &headerError{text: err.Error(), hint: "see what the client sends: accept_from of the listener's proxy_protocol block has its address, and both versions of the PROXY protocol are understood, for TCP over IPv4 and IPv6"}
	case errors.Is(err, io.ErrUnexpectedEOF):
		err = &headerError{text: "the client left before its PROXY header was complete", hint: "see the client's log"}
	case errors.Is(err, os.ErrDeadlineExceeded):
		err = &headerError{text: "the client's PROXY header did not come in time: i/o timeout", hint: expected, err: err}
	}
	return header, err
}

// hasLeft says whether the peer of a socket has ended its direction, and nothing is left to
// be read.
func hasLeft(s syscall.Conn) bool {
	raw, err := s.SyscallConn()
	if err != nil {
		return false // whoever reads learns of it
	}
	var is bool
	ctlErr := raw.Control(func(fd uintptr) {
		_, err := bare.Peek(fd, make([]byte, 1))
		is = left(err)
	})
	return ctlErr == nil && is
}

// errUnwantedHeader is of a client that begins with a PROXY header, and is none that has to.
var errUnwantedHeader = &headerError{
	text: "the client sends a PROXY header, and is no load balancer that may",
	hint: "if it is one of yours, put its address into accept_from of the listener's proxy_protocol block; otherwise let it send no header",
}

// unwantedHeader is without an answer, as a load balancer would take that for the target's.
func unwantedHeader() *Failure { return &Failure{Err: errUnwantedHeader, Reset: true} }

// beginsHeader says whether a client begins with a PROXY header. It waits for no byte of
// one that does not.
func beginsHeader(r *bufio.Reader) bool {
	for n := 1; ; n++ {
		b, err := r.Peek(n)
		is, maybe := proxyheader.Begins(b)
		if is || err != nil || !maybe {
			return is
		}
	}
}
