package websocks

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/tunneld/tunneld/internal/socks5"
	"github.com/tunneld/tunneld/internal/tlsconf"
	"github.com/tunneld/tunneld/plugins/sdk"
	"github.com/tunneld/tunneld/plugins/websocks/internal/wire"
)

// maxAnswer bounds, in bytes, what the server may send during the handshake.
const maxAnswer = 64 << 10

// Dial connects to the server, upgrades and asks for the target, in two round
// trips after TCP and TLS. That it succeeds says nothing about the target: the
// server connects there after the client's first byte.
func (c *Config) Dial(ctx context.Context, req *sdk.Request) (*sdk.Tunnel, error) {
	far, err := parseURL(c.URL)
	if err != nil {
		return nil, fmt.Errorf("url: %w", err)
	}
	opening, err := openingFor(req.Target)
	if err != nil {
		return nil, err
	}
	tunnel, err := c.dial(ctx, req, far, opening)
	c.tell(err)
	return tunnel, err
}

func (c *Config) dial(ctx context.Context, req *sdk.Request, far farEnd, opening []byte) (*sdk.Tunnel, error) {
	conn, err := c.connect(ctx, req, far)
	if err != nil {
		return nil, err
	}
	tunnel, err := c.handshake(ctx, req, far, conn, opening)
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return tunnel, nil
}

func (c *Config) connect(ctx context.Context, req *sdk.Request, far farEnd) (net.Conn, error) {
	ctx, cancel := c.Timeouts.ConnectContext(ctx)
	defer cancel()
	conn, err := req.Connect(ctx, far.address)
	if err != nil {
		return nil, failed(sdk.StageConnect, "connect to "+far.address, err)
	}
	return conn, nil
}

// openingFor returns all that is sent after the upgrade: the ten bytes, the
// greeting and the request, in one packet. The server answers CONNECT with a
// refusal if a byte more comes with it.
func openingFor(target sdk.Target) ([]byte, error) {
	wrong := func(message, hint string, err error) error {
		return &sdk.DialError{Stage: sdk.StageRequest, Reason: sdk.ReasonUnreachable, Message: message, Hint: hint, Err: err}
	}
	if target.Port == 0 {
		return nil, wrong(fmt.Sprintf("target %q has no port", target.Host), `write the listener's target as "host:port"`, nil)
	}
	frame := wire.Frame()
	b, err := socks5.AppendGreeting(frame[:], socks5.MethodNone)
	if err == nil {
		b, err = socks5.AppendRequest(b, socks5.Request{
			Command: socks5.Connect,
			Address: socks5.Address{Host: target.Host, Port: target.Port},
		})
	}
	if err != nil {
		return nil, wrong(err.Error(), "SOCKS carries host names of 1 to 255 bytes and IP addresses without a zone", err)
	}
	return b, nil
}

// handshake does everything behind the TCP connection. On an error the caller
// closes conn.
func (c *Config) handshake(ctx context.Context, req *sdk.Request, far farEnd, conn net.Conn, opening []byte) (*sdk.Tunnel, error) {
	ctx, cancel := c.Timeouts.HandshakeContext(ctx)
	defer cancel()
	h := &handshake{config: c, far: far, socket: conn, stream: conn}
	err := sdk.Bound(ctx, conn, func() error { return h.run(ctx, req, opening) })
	var typed *sdk.DialError
	switch {
	case errors.As(err, &typed):
		return nil, err
	case err != nil:
		return nil, failed(sdk.StageRequest, "finish the handshake", err)
	}
	ahead, _ := h.in.Peek(h.in.Buffered())
	if t, ok := h.stream.(tlsconf.FIN); ok {
		return sdk.RelayConn(&aheadConn{FIN: t, ahead: ahead}), nil
	}
	return sdk.Direct(conn, ahead), nil
}

// aheadConn is a TLS connection of which some bytes were read already.
type aheadConn struct {
	tlsconf.FIN
	ahead []byte
}

func (c *aheadConn) Read(b []byte) (int, error) {
	if len(c.ahead) == 0 {
		return c.FIN.Read(b)
	}
	n := copy(b, c.ahead)
	c.ahead = c.ahead[n:]
	return n, nil
}

// failed is the error of a step that failed by the network's doing. Of a connect the
// error itself says more than that it was late: which addresses were tried.
func failed(stage sdk.Stage, step string, err error) *sdk.DialError {
	e := sdk.NetworkError(stage, err)
	if stage != sdk.StageConnect && e.Reason == sdk.ReasonTimeout && !errors.Is(err, sdk.ErrOvertime) {
		e.Message = "no answer in time"
	}
	e.Message = step + ": " + e.Message
	return e
}
