package engine

import (
	"net"
	"net/netip"
)

// place is where a socket is bound: an address of TCP, or the path of a unix socket.
type place struct {
	addr netip.AddrPort
	path string // empty: it is an address
}

func placeAt(addr netip.AddrPort) place { return place{addr: addr} }

// placeOf is that of a socket with the address.
func placeOf(addr net.Addr) place {
	if u, ok := addr.(*net.UnixAddr); ok {
		return place{path: u.Name}
	}
	a := addr.(*net.TCPAddr).AddrPort() // there are no others
	return placeAt(netip.AddrPortFrom(a.Addr().Unmap(), a.Port()))
}

// String is the place as the configuration writes it.
func (p place) String() string {
	if p.path != "" {
		return "unix://" + p.path
	}
	return p.addr.String()
}

// any says whether the system is to pick the port.
func (p place) any() bool { return p.path == "" && p.addr.Port() == 0 }

// beyond says whether others than this machine's users reach it.
func (p place) beyond() bool { return p.path == "" && !p.addr.Addr().IsLoopback() }

// same says whether the daemon binds p and other as one: an unspecified address is that
// of both families.
func (p place) same(other place) bool {
	return p == other || p.path == "" && other.path == "" && p.addr.Port() == other.addr.Port() &&
		p.addr.Addr().IsUnspecified() && other.addr.Addr().IsUnspecified()
}

// overlaps says whether the one may be in the way of the other. The unspecified address
// takes both families: that is how Go listens on it.
func (p place) overlaps(other place) bool {
	if p.path != "" || other.path != "" {
		return p.path == other.path
	}
	a, b := p.addr.Addr(), other.addr.Addr()
	return p.addr.Port() == other.addr.Port() && (a.IsUnspecified() || b.IsUnspecified() || a == b)
}
