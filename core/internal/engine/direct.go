package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/tunneld/tunneld/core/internal/config"
	"github.com/tunneld/tunneld/core/internal/tunnel"
	"github.com/tunneld/tunneld/internal/bare"
	"github.com/tunneld/tunneld/internal/neterr"
	"github.com/tunneld/tunneld/internal/outbound"
	"github.com/tunneld/tunneld/internal/tlsconf"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// direct is the built-in upstream: a TCP connection to the target itself.
type direct struct {
	id     string
	socket tunnel.SocketOptions
	via    outbound.Via
	bind   netip.Addr
	// resolver looks names up; nil: as the system does.
	resolver outbound.Resolver
	// tls is spoken to the target, as this server unless that is empty; nil: none is.
	tls        *tlsconf.Client
	serverName string
	// proxyTLS is spoken to an https proxy; nil: there is no proxy.
	proxyTLS *tlsconf.Client
}

// newDirect returns the upstream. client returns its TLS client with these options.
func newDirect(u config.Upstream, client func(tlsconf.ClientOptions) *tlsconf.Client) direct {
	d := direct{id: u.ID(), socket: u.Socket, via: u.Common.Via, bind: u.Common.Bind}
	var proxy tlsconf.ClientOptions
	if u.TLS != nil {
		d.tls, d.serverName = client(u.TLS.Client), u.TLS.ServerName
		// Of the block only the authorities and the oldest version hold for a proxy, too:
		// the rest is the target's, and a proxy is sent a password.
		proxy = tlsconf.ClientOptions{CAFile: u.TLS.Client.CAFile, MinVersion: u.TLS.Client.MinVersion}
	}
	if !d.via.IsZero() {
		d.proxyTLS = client(proxy)
	}
	return d
}

// Dial resolves the target and connects to it.
func (d direct) Dial(ctx context.Context, req tunnel.Dial) (*tunnel.Conn, error) {
	if req.Target.Port == 0 {
		return nil, &tunnel.DialError{
			Upstream: d.id,
			Stage:    pluginv1.Stage_STAGE_RESOLVE,
			Reason:   pluginv1.Reason_REASON_UNREACHABLE,
			Message:  fmt.Sprintf("the target %q has no port", req.Target.Host),
			Hint:     `upstream "direct" needs a target of the form host:port`,
		}
	}
	var clock stageClock
	conn, err := d.connect(ctx, req, clock.enter)
	stage, stages := clock.stop()
	if err != nil {
		e := d.failed(ctx, stage, stages, err)
		d.denied(e, req.Target, err)
		return nil, e
	}
	conn.Path, conn.Stages = pluginv1.DataPath_DATA_PATH_DIRECT, stages
	return conn, nil
}

// failed is the error of a dial that came as far as stage.
func (d direct) failed(ctx context.Context, stage pluginv1.Stage, stages []tunnel.StageTime, err error) *tunnel.DialError {
	m := neterr.ClassifyAt(stage, err)
	e := &tunnel.DialError{
		Upstream:  d.id,
		Stage:     stage,
		Reason:    m.Reason,
		Retryable: m.Retryable,
		Message:   err.Error(),
		Hint:      m.Hint,
		Stages:    stages,
		Err:       err,
	}
	if ctx.Err() != nil {
		e.Message = fmt.Sprintf("%v (%v)", err, context.Cause(ctx))
	}
	var explained *neterr.Explained
	if errors.As(err, &explained) && !ofTarget(m.Reason) {
		e.RetryAfter = explained.RetryAfter
	}
	return e
}

// ofTarget says whether a proxy's refusal is about the target, which its client named:
// it says nothing of the next one's.
func ofTarget(r pluginv1.Reason) bool {
	return r == pluginv1.Reason_REASON_UNREACHABLE || r == pluginv1.Reason_REASON_DENIED || r == pluginv1.Reason_REASON_TIMEOUT
}

// connect makes the connection: a bare socket, unless a proxy or TLS has to be spoken.
func (d direct) connect(ctx context.Context, req tunnel.Dial, enter func(pluginv1.Stage)) (*tunnel.Conn, error) {
	if !d.via.IsZero() || d.tls != nil {
		return d.through(ctx, req, enter)
	}
	race := outbound.Race[*bare.Socket]{
		Resolver: d.resolver,
		Bind:     d.bind,
		Allow:    req.Allow,
		Enter:    enter,
		Attempt:  bare.Dialer{Options: d.socket, Bind: d.bind}.Dial,
		Discard:  (*bare.Socket).Close,
	}
	socket, err := race.Connect(ctx, req.Target.String())
	if err != nil {
		return nil, err
	}
	return &tunnel.Conn{End: tunnel.End{Socket: socket}}, nil
}

// through connects by way of the proxy, if there is one, and then speaks TLS, if that
// is wanted.
func (d direct) through(ctx context.Context, req tunnel.Dial, enter func(pluginv1.Stage)) (*tunnel.Conn, error) {
	dialer := outbound.Dialer{Socket: d.socket, Bind: d.bind, Via: d.via, Allow: req.Allow, Resolver: d.resolver}
	if d.proxyTLS != nil {
		dialer.TLS = d.proxyTLS.Config
	}
	conn, err := dialer.Dial(ctx, req.Target.String(), enter)
	if err != nil {
		return nil, err
	}
	if d.tls != nil {
		enter(pluginv1.Stage_STAGE_TLS)
		if conn, err = d.secure(ctx, conn, req.Target.Host); err != nil {
			return nil, err
		}
	}
	if tcp, ok := bare.Under(conn).(*net.TCPConn); ok && !d.socket.Nodelay {
		if err := tcp.SetNoDelay(false); err != nil {
			bare.Reset(conn)
			return nil, err
		}
	}
	return &tunnel.Conn{End: tunnel.End{Stream: conn}}, nil
}

// secure speaks TLS on conn, which it closes on an error. An end of file without a
// close_notify is then an error of Read, so that a cut does not look like a clean
// end.
func (d direct) secure(ctx context.Context, conn net.Conn, host string) (net.Conn, error) {
	config, err := d.tls.Config(cmp.Or(d.serverName, host))
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("tls: %w", err)
	}
	c := tlsconf.ClientConn(conn, config, tlsconf.Ends{Strict: true})
	if err := c.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("TLS handshake: %w", err)
	}
	return outbound.KeepAlert(c), nil
}
