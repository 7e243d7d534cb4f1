package sapsocks

import (
	"context"
	"errors"
	"net"
	"net/netip"

	"github.com/tunneld/tunneld/internal/socks5"
	"github.com/tunneld/tunneld/plugins/sdk"
)

// Dial connects to the target through the proxy and hands the socket over. A
// token that was at hand and is refused is dropped, and the dial made once more
// with a fresh one; nothing else is tried again.
func (c *Config) Dial(ctx context.Context, req *sdk.Request) (*sdk.Tunnel, error) {
	u := c.running
	if u == nil {
		return nil, errors.New("dial through sapsocks: it was not started")
	}
	conn, err := u.dial(ctx, req)
	u.reportHealth(err)
	if err != nil {
		return nil, err
	}
	// The handshake's readers take nothing of what follows it, so first data
	// that came along is still in the socket.
	return sdk.Direct(conn, nil), nil
}

func (u *upstream) dial(ctx context.Context, req *sdk.Request) (net.Conn, error) {
	s := u.current()
	w := words{target: req.Target.String(), proxy: s.proxy, location: u.config.LocationID}
	address, failure := w.address(req.Target)
	if failure != nil {
		return nil, failure
	}
	for again := false; ; again = true {
		h := handshake{words: w, settings: s, address: address, limits: u.config.Timeouts}
		k, cached, err := u.token(ctx, req, s, &h)
		if err != nil {
			return nil, w.canceled(ctx, sdk.StageCredential, err)
		}
		conn, err := h.connect(ctx, req)
		if refused := errors.Is(err, AuthRefused) || errors.Is(err, ReplyAuthRefused); refused && k != nil {
			u.tokens.drop(k)
			if cached && !again {
				u.log.Debug("the proxy refused the token at hand; trying once with a fresh one", "conn", req.Connection)
				continue
			}
		}
		return conn, err
	}
}

// token sets the handshake's token. k is nil where the token is given or none
// is sent.
func (u *upstream) token(ctx context.Context, req *sdk.Request, s settings, h *handshake) (k *token, cached bool, err error) {
	switch {
	case s.trusted:
		return nil, false, nil
	case s.jwt != "":
		h.jwt = s.jwt
		return nil, false, nil
	}
	req.Enter(sdk.StageCredential)
	k, cached, err = u.tokens.get(ctx)
	if err == nil {
		h.jwt = k.value
	}
	return k, cached, err
}

// reportHealth tells the upstream's health from a dial. What concerns only one target
// says nothing of the upstream.
func (u *upstream) reportHealth(err error) {
	var e *sdk.DialError
	switch {
	case err == nil:
		u.status.dialed(nil)
	case !errors.As(err, &e) || e.Reason == sdk.ReasonCanceled || e.Stage == sdk.StageCredential:
		// The code that fetches tokens has reported a failed fetch.
	case e.Stage != sdk.StageRequest, errors.Is(err, ReplyNoConnector), errors.Is(err, ReplyAuthRefused):
		u.status.dialed(err)
	}
}

// canceled makes the DialError of a dial that was given up while it waited, and
// passes on one that is made.
func (w words) canceled(ctx context.Context, stage sdk.Stage, err error) error {
	var e *sdk.DialError
	if errors.As(err, &e) {
		return err
	}
	f := &sdk.DialError{Stage: stage, Reason: sdk.ReasonUnavailable, Message: err.Error(), Err: err}
	if ctx.Err() != nil {
		e := sdk.NetworkError(stage, ctx.Err())
		f.Reason, f.Retryable = e.Reason, e.Retryable
		f.Message = "given up while waiting for an access token: " + err.Error()
		if f.Reason == sdk.ReasonTimeout {
			f.Hint = "the token service has not answered yet: check why it is slow, or raise timeouts.dial of the listener"
		}
	}
	return f
}

// address turns the target into what the proxy takes: a name, which stays
// unresolved, or an IPv4 address.
func (w words) address(t sdk.Target) (socks5.Address, *sdk.DialError) {
	a := socks5.Address{Host: t.Host, Port: t.Port}
	if ip, err := netip.ParseAddr(t.Host); err == nil {
		if ip = ip.Unmap(); !ip.Is4() {
			return a, w.failure(IPv6Target, "", nil)
		}
		a.Host = ip.String()
	}
	if t.Port == 0 {
		return a, w.failure(BadTarget, "it has no port", nil)
	}
	if _, err := socks5.AppendRequest(nil, socks5.Request{Command: socks5.Connect, Address: a}); err != nil {
		return a, w.failure(BadTarget, err.Error(), err)
	}
	return a, nil
}

// connect opens the connection to the proxy and does the handshake on it.
func (h *handshake) connect(ctx context.Context, req *sdk.Request) (net.Conn, error) {
	cctx, cancel := h.limits.ConnectContext(ctx)
	defer cancel()
	conn, err := req.Connect(cctx, h.settings.proxy)
	if err != nil {
		return nil, h.words.network(ProxyUnreachable, err.Error(), err)
	}
	if err := h.run(ctx, req, conn); err != nil {
		_ = conn.Close() // nothing of it matters any more
		return nil, err
	}
	return conn, nil
}

// networkDetail is the error without the operation and addresses around it.
func networkDetail(err error) string {
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err
	}
	return excerpt(err.Error())
}
