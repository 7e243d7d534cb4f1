package listen

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/tunneld/tunneld/core/internal/tunnel"
	"github.com/tunneld/tunneld/internal/socks5"
)

var socks5Kind = Kind{
	Name:        KindSOCKS5,
	Summary:     "SOCKS version 5 (RFC 1928), with or without a password (RFC 1929), only CONNECT",
	NamesTarget: true,
	Passwords:   true,
	Speaks:      "SOCKS5",
	Begins:      func(first byte) bool { return first == socks5.Version },
	Astray:      "the client is set to a SOCKS proxy: set it to an HTTP proxy, or to the port of a socks5 or mixed listener",
	Foreign:     func(string) []byte { return socks5.AppendMethod(nil, socks5.MethodUnacceptable) },
	New:         func(Settings) Protocol { return socksProtocol{} },
}

// socksProtocol is RFC 1928. Only CONNECT is spoken, and of the methods "no
// authentication", or where clients have to log in "username/password" (RFC 1929).
type socksProtocol struct{}

func (socksProtocol) Asks() bool { return true }

func (p socksProtocol) Learn(ctx context.Context, c *Conn) (Request, *Failure) {
	return hear(ctx, p, c, func(s io.ReadWriter) (Request, *Failure) {
		return readSOCKS5(bufio.NewReaderSize(s, socksBuffer), s, c.prover(ctx))
	})
}

// Refuse lets the client ask first: SOCKS has a word for this only in the reply to
// a request.
func (socksProtocol) Refuse(ctx context.Context, c *Conn, err *tunnel.DialError) {
	c.refuseHeard(ctx, socksBuffer, func(r *bufio.Reader, w io.Writer) []byte { return refuseSOCKS5(r, w, c.login != nil, err) })
}

// refuseSOCKS5 hears a client out, and returns the answer to it. Who offers only to send a
// password is let send it, where the listener asks for one.
func refuseSOCKS5(r *bufio.Reader, w io.Writer, asksLogin bool, err *tunnel.DialError) []byte {
	methods := []socks5.Method{socks5.MethodNone}
	if asksLogin {
		methods = append(methods, socks5.MethodUserPass)
	}
	if _, fail := askSOCKS5(r, w, func(string, string) error { return nil }, methods...); fail != nil {
		return fail.Answer
	}
	return socksRefusal(err)
}

var socksReplies = replies{ready: socksReply(socks5.Succeeded), refusal: socksRefusal}

func socksRefusal(err *tunnel.DialError) []byte { return socksReply(answerTo(err.Reason).SOCKS) }

// socksBuffer holds the longest request (RFC 1928, section 4) and some of what a
// client pipelines behind it.
const socksBuffer = 512

// readSOCKS5 reads what a client has to say, and answers all but its request.
func readSOCKS5(r *bufio.Reader, w io.Writer, prove prover) (Request, *Failure) {
	if prove != nil {
		return askSOCKS5(r, w, prove, socks5.MethodUserPass)
	}
	return askSOCKS5(r, w, nil, socks5.MethodNone)
}

// askSOCKS5 reads greeting, login and request, and answers the first two. The method is
// the first of methods that the client offers.
func askSOCKS5(r *bufio.Reader, w io.Writer, prove prover, methods ...socks5.Method) (Request, *Failure) {
	method, fail := readGreeting(r, methods)
	if fail != nil {
		return Request{}, fail
	}
	if _, err := w.Write(socks5.AppendMethod(nil, method)); err != nil {
		return Request{}, &Failure{Err: err}
	}
	user := ""
	if method == socks5.MethodUserPass {
		if user, fail = readLogin(r, w, prove); fail != nil {
			return Request{}, fail
		}
	}
	req, err := socks5.ReadRequest(r)
	if err != nil {
		return Request{}, badSOCKS5(err)
	}
	if req.Command != socks5.Connect {
		return Request{}, &Failure{
			Err: &mistake{
				fmt.Sprintf("the client asks for SOCKS command %d, and only CONNECT is supported", req.Command),
				"the client wants UDP (3) or an incoming connection (2): tunneld carries neither",
			},
			Answer: socksReply(socks5.CommandNotSupported),
		}
	}
	if req.Address.Port == 0 {
		return Request{}, &Failure{
			Err:    &mistake{fmt.Sprintf("the client asks for %s, and port 0 is not a target", req.Address), "check the port that the client asks for"},
			Answer: socksReply(socks5.GeneralFailure),
		}
	}
	asked := ask(req.Address.Host, req.Address.Port, buffered(r), socksReplies)
	asked.User = user
	return asked, nil
}

// readGreeting reads the client's first message, in which it has to offer one of the
// methods that are taken.
func readGreeting(r *bufio.Reader, taken []socks5.Method) (socks5.Method, *Failure) {
	first, err := r.Peek(1)
	switch {
	case left(err):
		return 0, &Failure{Err: ErrNothing}
	case err == nil && first[0] != socks5.Version:
		return 0, wrongProtocol(socks5Kind, first[0])
	}
	var offered []socks5.Method
	if err == nil {
		offered, err = socks5.ReadGreeting(r)
	}
	none := socks5.AppendMethod(nil, socks5.MethodUnacceptable)
	switch {
	case err != nil && broken(err):
		return 0, &Failure{Err: err}
	case err != nil:
		return 0, &Failure{Err: err, Answer: none}
	}
	for _, m := range taken {
		if slices.Contains(offered, m) {
			return m, nil
		}
	}
	wrong := &mistake{fmt.Sprintf("the client offers no method without authentication (%x)", offered), "tunneld asks for no password: remove it from the client's settings"}
	if slices.Contains(taken, socks5.MethodUserPass) {
		wrong = &mistake{fmt.Sprintf("the client does not offer to send a password (%x)", offered), "the listener has an auth block: put user and password into the client's settings"}
	}
	return 0, &Failure{Err: wrong, Answer: none}
}

// readLogin reads user and password (RFC 1929), and answers where they are right.
func readLogin(r io.Reader, w io.Writer, prove prover) (user string, fail *Failure) {
	login, err := socks5.ReadUserPass(r)
	if err != nil && broken(err) {
		return "", &Failure{Err: err}
	}
	if err == nil {
		err = prove(login.Username, login.Password)
	}
	if err != nil {
		return "", &Failure{Err: err, Answer: socks5.AppendUserPassStatus(nil, false), Reset: errors.Is(err, errNobody)}
	}
	if _, err := w.Write(socks5.AppendUserPassStatus(nil, true)); err != nil {
		return "", &Failure{Err: err}
	}
	return login.Username, nil
}

// badSOCKS5 is the answer to a request that cannot be read.
func badSOCKS5(err error) *Failure {
	var badType *socks5.AddressTypeError
	switch {
	case errors.As(err, &badType):
		return &Failure{Err: err, Answer: socksReply(socks5.AddressTypeNotSupported)}
	case broken(err):
		return &Failure{Err: err}
	default:
		return &Failure{Err: err, Answer: socksReply(socks5.GeneralFailure)}
	}
}

func socksReply(code socks5.Code) []byte {
	b, err := socks5.AppendReply(nil, socks5.Reply{Code: code})
	if err != nil {
		panic(err) // an empty address can always be written
	}
	return b
}
