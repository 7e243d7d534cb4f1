package socks5

import (
	"fmt"
	"io"
)

// AppendGreeting adds a client's first message: the methods that it offers, 1
// to 255 of them.
func AppendGreeting(b []byte, methods ...Method) ([]byte, error) {
	if len(methods) == 0 || len(methods) > 255 {
		return nil, fmt.Errorf("greeting with %d methods, not 1 to 255", len(methods))
	}
	b = append(b, Version, byte(len(methods)))
	for _, m := range methods {
		b = append(b, byte(m))
	}
	return b, nil
}

// ReadGreeting reads a client's first message. A client that offers nothing is
// no error; no method of its can be chosen then.
func ReadGreeting(r io.Reader) ([]Method, error) {
	const message = "SOCKS greeting"
	var head [2]byte
	if err := readHead(r, message, Version, head[:]); err != nil {
		return nil, err
	}
	var b [255]byte
	if err := readFull(r, b[:head[1]]); err != nil {
		return nil, inMessage(message, err)
	}
	methods := make([]Method, head[1])
	for i := range methods {
		methods[i] = Method(b[i])
	}
	return methods, nil
}

// AppendMethod adds a server's answer to a greeting. After MethodUnacceptable
// the server closes.
func AppendMethod(b []byte, m Method) []byte { return append(b, Version, byte(m)) }

// ReadMethod reads a server's answer to a greeting. That it was offered is for
// the caller to check.
func ReadMethod(r io.Reader) (Method, error) {
	var b [2]byte
	if err := readHead(r, "SOCKS method", Version, b[:]); err != nil {
		return 0, err
	}
	return Method(b[1]), nil
}

// Request is a client's request.
type Request struct {
	Command Command
	Address Address
}

// AppendRequest adds a request.
func AppendRequest(b []byte, q Request) ([]byte, error) {
	return q.Address.append(append(b, Version, byte(q.Command), 0))
}

// ReadRequest reads a request. An unknown command is returned as it is, with
// its address; a server answers with CommandNotSupported. The error is, or
// wraps, an *AddressTypeError where the address is of an unknown type. RSV is
// not looked at.
func ReadRequest(r io.Reader) (Request, error) {
	const message = "SOCKS request"
	var head [3]byte
	if err := readHead(r, message, Version, head[:]); err != nil {
		return Request{}, err
	}
	a, err := readAddress(r)
	if err == nil {
		err = checkName(a.Host)
	}
	if err != nil {
		return Request{}, inMessage(message, err)
	}
	return Request{Command: Command(head[1]), Address: a}, nil
}

// Reply is a server's answer to a request.
type Reply struct {
	Code Code
	// Bound is BND.ADDR and BND.PORT: empty in a refusal that was read, and a
	// name is whatever the server sent.
	Bound Address
}

// AppendReply adds a reply. An empty Bound.Host is written as 0.0.0.0: nothing
// can be said of it, as in most refusals.
func AppendReply(b []byte, p Reply) ([]byte, error) {
	if p.Bound.Host == "" {
		p.Bound.Host = "0.0.0.0"
	}
	return p.Bound.append(append(b, Version, byte(p.Code), 0))
}

// ReadReply reads a reply. One that refuses is returned after its second byte:
// there are servers that send no more, and nothing of use would follow.
func ReadReply(r io.Reader) (Reply, error) {
	const message = "SOCKS reply"
	var head [2]byte
	if err := readHead(r, message, Version, head[:]); err != nil {
		return Reply{}, err
	}
	if code := Code(head[1]); code != Succeeded {
		return Reply{Code: code}, nil
	}
	var reserved [1]byte
	if err := readFull(r, reserved[:]); err != nil {
		return Reply{}, inMessage(message, err)
	}
	a, err := readAddress(r)
	if err != nil {
		return Reply{}, inMessage(message, err)
	}
	return Reply{Bound: a}, nil
}
