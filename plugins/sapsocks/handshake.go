package sapsocks

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/tunneld/tunneld/internal/socks5"
	"github.com/tunneld/tunneld/plugins/sdk"
)

// methodJWT is SAP's authentication method: a JWT and a location id.
const methodJWT socks5.Method = 0x80

// handshake is the conversation with the proxy, up to its answer to the request.
type handshake struct {
	words    words
	settings settings
	address  socks5.Address
	jwt      string
	limits   sdk.Timeouts
}

// run talks to the proxy on conn, which it leaves open. Its errors are
// *sdk.DialError.
func (h *handshake) run(ctx context.Context, req *sdk.Request, conn net.Conn) error {
	req.Enter(sdk.StageHandshake)
	if err := h.step(ctx, conn, h.authenticate); err != nil {
		return h.broken(ctx, sdk.StageHandshake, err)
	}
	req.Enter(sdk.StageRequest)
	if err := h.step(ctx, conn, h.request); err != nil {
		return h.broken(ctx, sdk.StageRequest, err)
	}
	return nil
}

// step gives f its time.
func (h *handshake) step(ctx context.Context, conn net.Conn, f func(io.ReadWriter) error) error {
	ctx, cancel := h.limits.HandshakeContext(ctx)
	defer cancel()
	return sdk.Bound(ctx, conn, func() error { return f(conn) })
}

// authenticate offers exactly one method, the one that the user wants: a proxy
// in trusted mode must be asked for, not fallen back to.
func (h *handshake) authenticate(conn io.ReadWriter) error {
	offer := methodJWT
	if h.settings.trusted {
		offer = socks5.MethodNone
	}
	greeting, err := socks5.AppendGreeting(nil, offer)
	if err != nil {
		return err
	}
	if _, err := conn.Write(greeting); err != nil {
		return err
	}
	chosen, err := socks5.ReadMethod(conn)
	var version *socks5.VersionError
	switch {
	case errors.As(err, &version):
		return h.words.failure(ProxyNotSOCKS, version.Error(), err)
	case err != nil:
		return err
	case chosen == socks5.MethodUnacceptable && h.settings.trusted:
		return h.words.failure(ProxyWantsAuth, "", nil)
	case chosen == socks5.MethodUnacceptable:
		return h.words.failure(ProxyNoJWT, "", nil)
	case chosen == offer:
	case chosen == socks5.MethodNone:
		return h.words.failure(ProxyTrusted, "", nil)
	default:
		return h.words.failure(ProxyOddMethod, fmt.Sprintf("method %02x", byte(chosen)), nil)
	}
	if h.settings.trusted {
		return nil
	}
	if _, err := conn.Write(appendJWT(nil, h.jwt, h.settings.location)); err != nil {
		return err
	}
	status, err := socks5.ReadUserPassStatus(conn)
	switch {
	case errors.Is(err, socks5.ErrMalformed):
		return h.words.failure(HandshakeMalformed, err.Error(), err)
	case err != nil:
		return err
	case status != 0:
		return h.words.failure(AuthRefused, fmt.Sprintf("authentication status %02x", status), nil)
	}
	return nil
}

func (h *handshake) request(conn io.ReadWriter) error {
	q, err := socks5.AppendRequest(nil, socks5.Request{Command: socks5.Connect, Address: h.address})
	if err != nil {
		return err
	}
	if _, err := conn.Write(q); err != nil {
		return err
	}
	reply, err := socks5.ReadReply(conn)
	switch {
	case errors.Is(err, socks5.ErrMalformed):
		return h.words.failure(RequestMalformed, err.Error(), err)
	case err != nil:
		return err
	case reply.Code != socks5.Succeeded:
		return h.words.failure(Reply(byte(reply.Code)), fmt.Sprintf("SOCKS reply %02x", byte(reply.Code)), nil)
	}
	return nil
}

// broken makes the DialError of a connection that failed within a stage, and
// passes on one that is made.
func (h *handshake) broken(ctx context.Context, stage sdk.Stage, err error) error {
	var made *sdk.DialError
	if errors.As(err, &made) {
		return err
	}
	timeout, other := HandshakeTimeout, HandshakeBroken
	if stage == sdk.StageRequest {
		timeout, other = RequestTimeout, RequestBroken
	}
	detail := networkDetail(err)
	ended := context.Cause(ctx)
	if ended != nil {
		err = ended // the deadline was only the means
		detail = err.Error()
	}
	if sdk.NetworkError(stage, err).Reason != sdk.ReasonTimeout {
		return h.words.network(other, detail, err)
	}
	if ended == nil {
		detail = fmt.Sprintf("nothing within the %s of timeouts.handshake", h.limits.Handshake)
	}
	return h.words.failure(timeout, detail, err)
}

// appendJWT adds the message of method 0x80: a version, the token behind four
// length bytes and the location id's base64 behind one.
func appendJWT(b []byte, jwt, location string) []byte {
	b = binary.BigEndian.AppendUint32(append(b, 1), uint32(len(jwt)))
	b = append(b, jwt...)
	return append(append(b, byte(len(location))), location...)
}
