package listen

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/tunneld/tunneld/internal/socks5"
)

// socksBuffer holds the longest request (RFC 1928, section 4) and some of what a
// client pipelines behind it.
const socksBuffer = 512

// socksReady is the reply of a successful dial.
var socksReady = socksReply(socks5.Succeeded)

// readSOCKS5 reads greeting and request of RFC 1928, and answers the greeting.
// Only "no authentication" and CONNECT are spoken.
func readSOCKS5(c io.ReadWriter) (asked, *failure) {
	r := bufio.NewReaderSize(c, socksBuffer)
	if fail := readGreeting(r); fail != nil {
		return asked{}, fail
	}
	if _, err := c.Write(socks5.AppendMethod(nil, socks5.MethodNone)); err != nil {
		return asked{}, &failure{err: err}
	}
	req, err := socks5.ReadRequest(r)
	if err != nil {
		return asked{}, badRequest(err)
	}
	if req.Command != socks5.Connect {
		return asked{}, &failure{
			err:    fmt.Errorf("the client asks for SOCKS command %d, and only CONNECT is supported", req.Command),
			answer: socksReply(socks5.CommandNotSupported),
		}
	}
	if req.Address.Port == 0 {
		return asked{}, &failure{
			err:    fmt.Errorf("the client asks for %s, and port 0 is no target", req.Address),
			answer: socksReply(socks5.GeneralFailure),
		}
	}
	return ask(req.Address.Host, req.Address.Port, buffered(r)), nil
}

// readGreeting reads the client's first message, in which it has to offer "no
// authentication".
func readGreeting(r *bufio.Reader) *failure {
	first, err := r.Peek(1)
	if err == nil && first[0] != socks5.Version {
		return stranger(KindSOCKS5, first[0])
	}
	var methods []socks5.Method
	if err == nil {
		methods, err = socks5.ReadGreeting(r)
	}
	none := socks5.AppendMethod(nil, socks5.MethodUnacceptable)
	switch {
	case errors.Is(err, io.EOF):
		return &failure{err: ErrNothing}
	case err != nil && broken(err):
		return &failure{err: err}
	case err != nil:
		return &failure{err: err, answer: none}
	case !slices.Contains(methods, socks5.MethodNone):
		return &failure{
			err:    fmt.Errorf("the client offers no method without authentication (%x)", methods),
			answer: none,
		}
	}
	return nil
}

// badRequest is the answer to a request that cannot be read.
func badRequest(err error) *failure {
	var badType *socks5.AddressTypeError
	switch {
	case errors.As(err, &badType):
		return &failure{err: err, answer: socksReply(socks5.AddressTypeNotSupported)}
	case broken(err):
		return &failure{err: err}
	default:
		return &failure{err: err, answer: socksReply(socks5.GeneralFailure)}
	}
}

func socksReply(code socks5.Code) []byte {
	b, err := socks5.AppendReply(nil, socks5.Reply{Code: code})
	if err != nil {
		panic(err) // an empty address can always be written
	}
	return b
}

// buffered returns a copy of what r has read too far.
func buffered(r *bufio.Reader) []byte {
	if r.Buffered() == 0 {
		return nil
	}
	b, err := r.Peek(r.Buffered())
	if err != nil {
		panic(err) // it is in the buffer
	}
	return append([]byte(nil), b...)
}
