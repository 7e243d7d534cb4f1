package websocks

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/tunneld/tunneld/internal/socks5"
	"github.com/tunneld/tunneld/internal/tlsconf"
	"github.com/tunneld/tunneld/plugins/sdk"
	"github.com/tunneld/tunneld/plugins/websocks/internal/wire"
)

// maxInformational is how many 1xx answers may precede the one that counts.
const maxInformational = 8

// handshake is one conversation with a server.
type handshake struct {
	config *Config
	far    farEnd
	socket net.Conn
	stream net.Conn // socket, or TLS over it
	in     *bufio.Reader
	limit  *io.LimitedReader // under in
}

// failed is the error of a step under way, or of ctx, which ended it. hint is
// for a server that does not answer or hangs up, where it knows more than the
// general one.
func (h *handshake) failed(ctx context.Context, stage sdk.Stage, step string, err error, hint string) error {
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	} else if closed(err) {
		if h.limit != nil && h.limit.N <= 0 {
			return refused(stage, fmt.Sprintf("%s: more than %d bytes", step, maxAnswer), "check that the server speaks WebSocks on this path")
		}
		err = fmt.Errorf("the server closed the connection: %w", err)
	}
	e := failed(stage, step, err)
	if e.Reason == sdk.ReasonTimeout || closed(err) {
		e.Hint = hint
	}
	return e
}

// closed says whether err is an end of file, expected or not.
func closed(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) }

// refused is the error of a server that answers what it should not.
func refused(stage sdk.Stage, message, hint string) *sdk.DialError {
	return &sdk.DialError{Stage: stage, Reason: sdk.ReasonProtocol, Message: message, Hint: hint}
}

// run does the whole handshake.
func (h *handshake) run(ctx context.Context, req *sdk.Request, opening []byte) error {
	if h.far.secure {
		req.Enter(sdk.StageTLS)
		if err := h.secure(ctx, req.TLS(h.config.TLS)); err != nil {
			return err
		}
	}
	h.limit = &io.LimitedReader{R: h.stream, N: maxAnswer}
	h.in = bufio.NewReader(h.limit)
	req.Enter(sdk.StageHandshake)
	if err := h.upgrade(ctx); err != nil {
		return err
	}
	if err := h.greet(ctx, opening); err != nil {
		return err
	}
	req.Enter(sdk.StageRequest)
	return h.request(ctx)
}

// secure does the TLS handshake.
func (h *handshake) secure(ctx context.Context, block sdk.TLS) error {
	config, err := block.Config(h.far.host)
	if err != nil {
		return &sdk.DialError{Stage: sdk.StageTLS, Reason: sdk.ReasonUnavailable, Message: err.Error(), Hint: "check the files of the tls block", Err: err}
	}
	// Servers of 2021 fall silent at a client that offers h2 alone.
	config.NextProtos = []string{"http/1.1"}
	socket := h.socket
	if h.config.RequireCloseNotify {
		socket = tlsconf.Strict(socket)
	}
	// The original takes a close_notify for an error, and throws away what it has
	// not yet passed on.
	t := tlsconf.FIN{Conn: tls.Client(socket, config)}
	if err := t.HandshakeContext(ctx); err != nil {
		return h.failed(ctx, sdk.StageTLS, "TLS handshake with "+h.far.address, err,
			`check the url's scheme and port; an old server stays silent if tls.min_version is "1.3"`)
	}
	h.stream = t
	return nil
}

// upgrade asks for the WebSocket and checks the answer. Nothing may be sent
// behind the request before it: the server would swallow it.
func (h *handshake) upgrade(ctx context.Context) error {
	const hint = "check the url's scheme, host, port and path, and that the gateway passes WebSocket on"
	var nonce [16]byte
	_, _ = rand.Read(nonce[:]) // never fails
	key := base64.StdEncoding.EncodeToString(nonce[:])
	if _, err := h.stream.Write(h.config.upgradeRequest(h.far, key)); err != nil {
		return h.failed(ctx, sdk.StageHandshake, "send the upgrade", err, hint)
	}
	for range maxInformational {
		resp, err := http.ReadResponse(h.in, &http.Request{Method: http.MethodGet})
		switch {
		case err != nil && malformedHTTP(err):
			return refused(sdk.StageHandshake, "the answer to the upgrade is not HTTP: "+h.config.excerpt(err.Error()), "check that the url's scheme and port belong together")
		case err != nil:
			return h.failed(ctx, sdk.StageHandshake, "read the answer to the upgrade", err, hint)
		case resp.StatusCode == http.StatusSwitchingProtocols:
			return h.config.checkUpgrade(resp.Header, key)
		case resp.StatusCode >= 200:
			return h.refusal(ctx, resp)
		}
	}
	return refused(sdk.StageHandshake, "the server keeps sending informational answers", hint)
}

// malformedHTTP says whether the error of reading an answer is the server's
// own: those of the connection are known by type.
func malformedHTTP(err error) bool {
	var network net.Error
	return !closed(err) && !errors.As(err, &network)
}

// upgradeRequest returns the request's bytes.
func (c *Config) upgradeRequest(far farEnd, key string) []byte {
	host := far.header
	var extra strings.Builder
	for _, name := range slices.Sorted(maps.Keys(c.Headers)) {
		if strings.EqualFold(name, "Host") {
			host = c.Headers[name]
			continue
		}
		extra.WriteString(name + ": " + c.Headers[name] + "\r\n")
	}
	if c.Username != "" {
		extra.WriteString("Authorization: Basic " + c.credentials(c.clock()) + "\r\n")
	}
	return fmt.Appendf(nil, "GET %s HTTP/1.1\r\n"+
		"Upgrade: websocket\r\n"+
		"Connection: Upgrade\r\n"+
		"Host: %s\r\n"+
		"Sec-WebSocket-Key: %s\r\n"+
		"Sec-WebSocket-Version: 13\r\n"+
		"Sec-WebSocket-Protocol: %s\r\n"+
		"%s\r\n", far.path, host, key, wire.Subprotocol, extra.String())
}

// credentials returns what follows "Basic": the name and the salted password.
func (c *Config) credentials(at time.Time) string {
	return base64.StdEncoding.EncodeToString([]byte(c.Username + ":" + wire.SaltPassword(c.Password.Reveal(), at)))
}

// checkUpgrade checks the header of a 101 (RFC 6455, section 4.1). A gateway
// may have added to it and changed the case of names.
func (c *Config) checkUpgrade(header http.Header, key string) error {
	const (
		gateway = "the gateway in front of the server may not pass WebSocket on correctly"
		other   = "check the path: the server there may speak WebSocket, but not WebSocks"
	)
	wrong := func(message, hint string) error {
		return refused(sdk.StageHandshake, "the server's 101 has "+message, hint)
	}
	protocols := header.Values("Sec-Websocket-Protocol")
	switch {
	case !hasToken(header.Values("Upgrade"), "websocket"):
		return wrong("no Upgrade: websocket", gateway)
	case !hasToken(header.Values("Connection"), "upgrade"):
		return wrong("no Connection: Upgrade", gateway)
	case !slices.Equal(header.Values("Sec-Websocket-Accept"), []string{wire.Accept(key)}):
		return wrong("a Sec-WebSocket-Accept that does not match the request's key", "something in between answers for the server, perhaps a cache")
	case len(protocols) == 0:
		return wrong("no Sec-WebSocket-Protocol", other)
	case len(protocols) > 1 || protocols[0] != wire.Subprotocol:
		return wrong(fmt.Sprintf("the Sec-WebSocket-Protocol %q instead of %q", c.excerpt(strings.Join(protocols, ", ")), wire.Subprotocol), other)
	case len(header.Values("Sec-Websocket-Extensions")) > 0:
		return wrong("a WebSocket extension that was not requested", gateway)
	}
	return nil
}

// hasToken says whether one of the comma-separated lists has the token, in any
// case.
func hasToken(lists []string, token string) bool {
	for _, list := range lists {
		for v := range strings.SplitSeq(list, ",") {
			if strings.EqualFold(strings.TrimSpace(v), token) {
				return true
			}
		}
	}
	return false
}

const noWebSocks = "the server that answered the upgrade may not speak WebSocks: check the url"

// greet sends everything behind the upgrade and reads the ten bytes and the
// SOCKS method.
func (h *handshake) greet(ctx context.Context, opening []byte) error {
	if _, err := h.stream.Write(opening); err != nil {
		return h.failed(ctx, sdk.StageHandshake, "send the SOCKS request", err, noWebSocks)
	}
	// Some servers fill the length with other values, so only the number of
	// bytes counts.
	if n, err := io.CopyN(io.Discard, h.in, wire.FrameSize); err != nil {
		return h.failed(ctx, sdk.StageHandshake, fmt.Sprintf("read the server's frame (%d of %d bytes)", n, wire.FrameSize), err, noWebSocks)
	}
	method, err := socks5.ReadMethod(h.in)
	switch {
	case errors.Is(err, socks5.ErrMalformed):
		return refused(sdk.StageHandshake, err.Error(), noWebSocks)
	case err != nil:
		return h.failed(ctx, sdk.StageHandshake, "read the SOCKS method", err, noWebSocks)
	case method == socks5.MethodUnacceptable:
		e := refused(sdk.StageHandshake, "the server accepts none of the offered SOCKS methods (0xff)", "the server wants SOCKS authentication, but WebSocks authenticates in HTTP: change the server's settings")
		e.Reason = sdk.ReasonUnauthenticated
		return e
	case method != socks5.MethodNone:
		return refused(sdk.StageHandshake, fmt.Sprintf("the server chose SOCKS method 0x%02x, which was not offered", byte(method)), noWebSocks)
	}
	return nil
}

// request reads the answer to CONNECT.
func (h *handshake) request(ctx context.Context) error {
	reply, err := socks5.ReadReply(h.in)
	switch {
	case errors.Is(err, socks5.ErrMalformed):
		return refused(sdk.StageRequest, err.Error(), noWebSocks)
	case err != nil:
		return h.failed(ctx, sdk.StageRequest, "read the SOCKS reply", err, noWebSocks)
	case reply.Code != socks5.Succeeded:
		return replyError(reply.Code)
	}
	return nil
}
