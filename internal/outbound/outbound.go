// Package outbound makes the connections to a far end: by all addresses of a name
// (RFC 8305), from an address of this machine that the user chose, and through a
// proxy. Around that it has what a handshake on such a connection needs: an end
// with a context, and the meaning of an HTTP refusal. It knows no plugin and no
// protocol behind the proxy.
package outbound

import (
	"context"
	"crypto/tls"
	"net"
	"net/netip"
	"syscall"
	"time"

	"github.com/tunneld/tunneld/internal/hostname"
	"github.com/tunneld/tunneld/internal/neterr"
	"github.com/tunneld/tunneld/internal/sockopt"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// Dialer makes TCP connections. The zero value is useful. It may be used by
// several goroutines at once.
type Dialer struct {
	// Socket is set on each connection, but for Nodelay: it is on.
	Socket sockopt.Options
	// Control is called with each socket before it connects; nil: nothing is.
	Control func(network, address string, c syscall.RawConn) error
	// Bind is the address that connections are made from; the zero Addr: any.
	Bind netip.Addr
	// Allow is Race's, for the target: a proxy's own address may be any. What a proxy is
	// asked for by name it resolves itself, so that only an IP address is checked there.
	Allow func(netip.Addr) error
	// Via is the proxy to go through.
	Via Via
	// TLS returns what TLS is spoken with to a proxy of this name, which is the
	// caller's to change; nil: the system's authorities hold.
	TLS func(proxy string) (*tls.Config, error)
	// Resolver looks names up; nil: net.DefaultResolver.
	Resolver Resolver
	// Timeout bounds each Dial, the proxy's part included; 0: only its context does.
	Timeout time.Duration
}

// Dial connects to address, "host:port", and returns once bytes can flow. The host may
// be beyond ASCII, and may end in a dot, which a proxy is not sent. enter,
// unless nil, is told the stage that begins: the lookup, then all else as the
// connect. What is returned is a *net.TCPConn from which nothing that belongs to
// the caller has been read; behind an https proxy it is a *tls.Conn over one. On an
// error it leaves nothing behind.
func (d *Dialer) Dial(ctx context.Context, address string, enter func(pluginv1.Stage)) (net.Conn, error) {
	ctx, cancel := d.within(ctx)
	defer cancel()
	address, err := hostname.ASCIIAddress(address)
	if err != nil {
		return nil, noHost(err)
	}
	proxy := d.Via.proxyFor(address)
	if proxy == nil {
		return d.connect(ctx, address, d.Allow, enter)
	}
	address = hostname.AddressWithoutDot(address)
	if err := d.allowThrough(address); err != nil {
		return nil, err
	}
	return d.dialThrough(ctx, proxy, address, enter)
}

// allowThrough asks Allow of what a proxy is to be asked for, if that is an IP address.
func (d *Dialer) allowThrough(address string) error {
	if d.Allow == nil {
		return nil
	}
	host, _, err := splitAddress(address)
	if err != nil {
		return dialError(err)
	}
	ip, notIP := netip.ParseAddr(host)
	if notIP != nil {
		return nil
	}
	if err := d.Allow(ip); err != nil {
		return &ConnectError{Denied: []error{err}}
	}
	return nil
}

// noHost is the error of a name that cannot be looked up.
func noHost(err error) error {
	return &neterr.Explained{
		Meaning: neterr.Meaning{Reason: pluginv1.Reason_REASON_NOT_FOUND, Retryable: true, Hint: "check the name"},
		Message: err.Error(),
		Err:     err,
	}
}

func (d *Dialer) within(ctx context.Context) (context.Context, context.CancelFunc) {
	if d.Timeout == 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, d.Timeout)
}

// connect makes the connection itself.
func (d *Dialer) connect(ctx context.Context, address string, allow func(netip.Addr) error, enter func(pluginv1.Stage)) (net.Conn, error) {
	dialer := d.netDialer()
	race := Race[net.Conn]{
		Resolver: d.Resolver,
		Bind:     d.Bind,
		Allow:    allow,
		Enter:    enter,
		Attempt: func(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
			return dialer.DialContext(ctx, "tcp", to.String())
		},
		Discard: func(c net.Conn) { _ = c.Close() },
	}
	return race.Connect(ctx, address)
}

func (d *Dialer) netDialer() *net.Dialer {
	dialer := d.Socket.Dialer()
	if d.Bind.IsValid() {
		dialer.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(d.Bind, 0))
	}
	options := dialer.Control
	dialer.Control = func(network, address string, c syscall.RawConn) error {
		if d.Control != nil {
			if err := d.Control(network, address, c); err != nil {
				return err
			}
		}
		if d.Bind.IsValid() {
			if err := c.Control(sockopt.LeavePort); err != nil {
				return err
			}
		}
		return options(network, address, c)
	}
	return dialer
}
