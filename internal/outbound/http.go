package outbound

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"

	"github.com/tunneld/tunneld/internal/tlsconf"
)

// Use makes d the dialer of t, and lets an HTTP proxy have requests over plain http
// as such (RFC 9112, section 3.2.2), since most refuse CONNECT to port 80. All other
// requests go through a connection of Dial's.
func (d *Dialer) Use(t *http.Transport) {
	t.Proxy = func(r *http.Request) (*url.URL, error) {
		p := d.forRequests(r.URL)
		if p == nil {
			return nil, nil
		}
		// TLS, where the proxy speaks it, is below: see dial.
		return &url.URL{Scheme: "http", Host: p.address(), User: p.user}, nil
	}
	t.DialContext = d.dialHTTP
}

// ReportAlerts makes the alert of a server that refuses the client's certificate the
// error of t's request. With TLS 1.3 it comes when the handshake is over for the client
// (RFC 8446, section 4.4.2.4): the transport reads it and closes the connection while it
// writes the request, and would report whichever of the two it sees first.
//
// TLS is then as t's TLSClientConfig and TLSHandshakeTimeout have it, over a connection
// of its DialContext, and a Response has no TLS. A clone of t has those of t until
// ReportAlerts is called for it.
func ReportAlerts(t *http.Transport) {
	t.DialTLSContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := t.DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		c, err := secureHTTP(ctx, conn, address, t)
		if err != nil {
			_ = conn.Close()
			return nil, err
		}
		return c, nil
	}
}

// secureHTTP does what a transport does by itself where it makes the connection.
func secureHTTP(ctx context.Context, conn net.Conn, address string, t *http.Transport) (net.Conn, error) {
	config := t.TLSClientConfig.Clone()
	if config == nil {
		config = new(tls.Config)
	}
	if host, _, err := net.SplitHostPort(address); err == nil && config.ServerName == "" {
		config.ServerName = host
	}
	c := tlsconf.ClientConn(conn, config, tlsconf.Ends{})
	trace := httptrace.ContextClientTrace(ctx)
	if trace != nil && trace.TLSHandshakeStart != nil {
		trace.TLSHandshakeStart()
	}
	if t.TLSHandshakeTimeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, t.TLSHandshakeTimeout)
		defer cancel()
	}
	err := c.HandshakeContext(ctx)
	if trace != nil && trace.TLSHandshakeDone != nil {
		trace.TLSHandshakeDone(c.ConnectionState(), err)
	}
	if err != nil {
		return nil, err
	}
	return KeepAlert(c), nil
}

// forRequests returns the HTTP proxy that requests to u are sent to, or nil.
func (d *Dialer) forRequests(u *url.URL) *Proxy {
	if u.Scheme != "http" {
		return nil
	}
	port := u.Port()
	if port == "" {
		port = proxyPorts["http"]
	}
	p := d.Via.proxyFor(net.JoinHostPort(u.Hostname(), port))
	if p == nil || p.isSOCKS() {
		return nil
	}
	return p
}

// dialHTTP is what a transport calls with the proxy's address as well.
func (d *Dialer) dialHTTP(ctx context.Context, _, address string) (net.Conn, error) {
	if p := d.Via.proxy; p != nil && !p.isSOCKS() && address == p.address() {
		ctx, cancel := d.within(ctx)
		defer cancel()
		return d.connectProxy(ctx, p, nil)
	}
	return d.Dial(ctx, address, nil)
}
