package outbound

import (
	"context"
	"net"
	"net/http"
	"net/url"
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
