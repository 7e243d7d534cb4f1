package listen

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"slices"

	"github.com/tunneld/tunneld/core/internal/tunnel"
	"github.com/tunneld/tunneld/internal/socks5"
)

// socksBuffer holds the longest request (RFC 1928, section 4) and some of what a
// client pipelines behind it.
const socksBuffer = 512

type socks5Client struct {
	conn   *net.TCPConn
	r      *bufio.Reader
	target tunnel.Target
}

// socks5Handshake reads greeting and request of RFC 1928. Only "no
// authentication" and CONNECT are spoken.
func socks5Handshake(c *net.TCPConn) (Client, error) {
	r := bufio.NewReaderSize(c, socksBuffer)
	methods, err := socks5.ReadGreeting(r)
	if err != nil {
		refuseVersion(c, err)
		return nil, err
	}
	if !slices.Contains(methods, socks5.MethodNone) {
		tell(c, socks5.AppendMethod(nil, socks5.MethodUnacceptable))
		return nil, fmt.Errorf("the client offers no method without authentication (%x)", methods)
	}
	if _, err := c.Write(socks5.AppendMethod(nil, socks5.MethodNone)); err != nil {
		Reset(c)
		return nil, err
	}
	req, err := socks5.ReadRequest(r)
	var badType *socks5.AddressTypeError
	switch {
	case errors.As(err, &badType):
		tellSOCKS(c, socks5.AddressTypeNotSupported)
		return nil, err
	case errors.Is(err, socks5.ErrMalformed):
		tellSOCKS(c, socks5.GeneralFailure)
		return nil, err
	case err != nil:
		_ = c.Close() // silent, or gone
		return nil, err
	case req.Command != socks5.Connect:
		tellSOCKS(c, socks5.CommandNotSupported)
		return nil, fmt.Errorf("the client asks for SOCKS command %d, and only CONNECT is supported", req.Command)
	case req.Address.Host == "" || req.Address.Port == 0:
		tellSOCKS(c, socks5.GeneralFailure)
		return nil, fmt.Errorf("the client asks for %s, which is no target", req.Address)
	}
	return &socks5Client{conn: c, r: r, target: tunnel.Target{Host: req.Address.Host, Port: req.Address.Port}}, nil
}

// refuseVersion answers a peer that speaks another protocol: SOCKS4 has a reply
// of its own for that, anything else is closed.
func refuseVersion(c *net.TCPConn, err error) {
	var version *socks5.VersionError
	if errors.As(err, &version) && version.Got == 4 {
		tell(c, []byte{0, 0x5b, 0, 0, 0, 0, 0, 0})
		return
	}
	_ = c.Close()
}

func (c *socks5Client) Target() tunnel.Target { return c.target }

func (c *socks5Client) Accept() (net.Conn, []byte, error) {
	if err := accept(c.conn, socksReply(socks5.Succeeded)); err != nil {
		return nil, nil, err
	}
	return c.conn, buffered(c.r), nil
}

func (c *socks5Client) Refuse(err *tunnel.DialError) {
	tellSOCKS(c.conn, answerTo(err.Reason).SOCKS)
}

func tellSOCKS(c *net.TCPConn, code socks5.Code) { tell(c, socksReply(code)) }

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
