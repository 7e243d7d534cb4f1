package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/tunneld/tunneld/core/internal/config"
)

// endpoint is an address as the block writes it, and the sockets that it resolves
// to.
type endpoint struct {
	block   string
	written string
	path    string // where the block has it
	named   bool   // its host is a name, of which the machine may lack an address
	// inherited: the process was given the sockets at its start.
	inherited bool
	places    []place       // where the port is any, the same for all
	sockets   []boundSocket // by the position in places; nil: not bound
}

// lookup returns the addresses of a name.
type lookup func(ctx context.Context, host string) ([]netip.Addr, error)

func systemLookup(ctx context.Context, host string) ([]netip.Addr, error) {
	return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
}

// resolve resolves an address, "host:port" or "unix:///path", as the configuration has
// checked it.
func resolve(ctx context.Context, find lookup, block, written string) (*endpoint, error) {
	if path, ok := config.UnixPath(written); ok {
		return &endpoint{block: block, written: written, places: []place{{path: path}}, sockets: make([]boundSocket, 1)}, nil
	}
	host, text, err := net.SplitHostPort(written)
	if err != nil {
		return nil, err
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return nil, err
	}
	s := &endpoint{block: block, written: written}
	ips := []netip.Addr{netip.IPv4Unspecified()} // of both families, for net
	if host != "" {
		ip, parseErr := netip.ParseAddr(host)
		ips = []netip.Addr{ip}
		if s.named = parseErr != nil; s.named {
			if ips, err = addresses(ctx, find, host); err != nil {
				return nil, err
			}
		}
	}
	for _, ip := range ips {
		s.places = append(s.places, placeAt(netip.AddrPortFrom(ip.Unmap(), uint16(port))))
	}
	s.sockets = make([]boundSocket, len(s.places))
	return s, nil
}

// asBound is the endpoint of those of the old sockets that the block has for the
// address already; nil: there are none.
func asBound(old []boundSocket, block, written string) *endpoint {
	s := &endpoint{block: block, written: written}
	for _, t := range old {
		if c := t.claimed(); c.block == block && c.written == written {
			s.places = append(s.places, t.bound())
		}
	}
	if s.places == nil {
		return nil
	}
	s.sockets = make([]boundSocket, len(s.places))
	return s
}

// addresses returns each address of a name once, IPv4 first; of localhost those
// that only this machine reaches, for that is what its block was checked for.
func addresses(ctx context.Context, find lookup, host string) ([]netip.Addr, error) {
	found, err := find(ctx, host)
	if err != nil {
		return nil, err
	}
	var ips []netip.Addr
	for _, ip := range found {
		if ip = ip.Unmap(); !slices.Contains(ips, ip) && (ip.IsLoopback() || !strings.EqualFold(host, "localhost")) {
			ips = append(ips, ip)
		}
	}
	if len(ips) == 0 {
		return nil, fmt.Errorf("%s has no loopback address", host)
	}
	slices.SortStableFunc(ips, func(a, b netip.Addr) int { return cmp.Compare(a.BitLen(), b.BitLen()) })
	return ips, nil
}

// reuse takes those of the old sockets that serve the endpoint as well, and returns
// the others: a socket for the same address, whatever was written, and of a port
// that the system picked one that the same block asked for. One that is bound to the
// very address goes before one that is as good. One that clients do not come to any more
// serves nothing.
func (s *endpoint) reuse(old []boundSocket) []boundSocket {
	for i, at := range s.places {
		if !at.any() {
			break
		}
		if known := asBound(old, s.block, s.written); known != nil {
			s.places[i] = placeAt(netip.AddrPortFrom(at.addr.Addr(), known.places[0].addr.Port()))
		}
	}
	for _, serves := range []func(boundSocket, place) bool{
		func(t boundSocket, at place) bool {
			// An inherited path has the permissions that its maker gave it.
			return t.bound() == at && t.inPlace() && (at.path == "" || t.claimed().inherited == s.inherited)
		},
		func(t boundSocket, at place) bool {
			// Of an inherited one the families are what it was made for.
			return !s.inherited && !t.claimed().inherited && t.inPlace() && (t.bound().same(at) || t.claimed().asked.same(at))
		},
	} {
		for i, at := range s.places {
			if at.any() || s.sockets[i] != nil {
				continue
			}
			if j := slices.IndexFunc(old, func(t boundSocket) bool { return serves(t, at) }); j >= 0 {
				s.sockets[i] = old[j]
				old = slices.Delete(old, j, j+1)
			}
		}
	}
	return old
}

// claim is that of the socket for one of the places, by the position.
func (s *endpoint) claim(i int) claim {
	return claim{block: s.block, written: s.written, asked: s.places[i], inherited: s.inherited}
}

// opener binds a socket.
type opener func(context.Context, place, claim) (boundSocket, error)

// portTries bounds how often the system picks a port anew that is to be free on
// several addresses.
const portTries = 16

// bind binds what nobody serves yet. lacking are the addresses of a name that
// this machine does not have, while it has another.
func (s *endpoint) bind(ctx context.Context, b *binding, open opener) (lacking []netip.Addr, err error) {
	for range portTries {
		var fresh []boundSocket
		if fresh, lacking, err = s.try(ctx, b, open); err == nil {
			b.fresh = append(b.fresh, fresh...)
			return lacking, nil
		}
		for _, t := range fresh {
			err = errors.Join(err, t.close())
		}
		if !s.places[0].any() || len(fresh) == 0 || !errors.Is(err, syscall.EADDRINUSE) {
			break
		}
	}
	return nil, err
}

// try is one try of bind. Where it fails the endpoint is as it was, and fresh are to
// be closed.
func (s *endpoint) try(ctx context.Context, b *binding, open opener) (fresh []boundSocket, lacking []netip.Addr, err error) {
	sockets := slices.Clone(s.sockets)
	var lackErr error
	for i, asked := range s.places {
		if sockets[i] != nil {
			continue
		}
		at := asked
		if asked.any() && len(fresh) > 0 {
			at = placeAt(netip.AddrPortFrom(asked.addr.Addr(), fresh[0].bound().addr.Port()))
		}
		err := b.displacing(at, func() (err error) {
			sockets[i], err = open(ctx, at, s.claim(i))
			return err
		})
		switch {
		case err == nil:
			fresh = append(fresh, sockets[i])
		case s.named && (errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.EAFNOSUPPORT)):
			sockets[i], lackErr = nil, err
			lacking = append(lacking, asked.addr.Addr())
		default:
			return fresh, nil, err
		}
	}
	if len(lacking) == len(s.places) {
		return nil, nil, lackErr
	}
	s.sockets = sockets
	return fresh, lacking, nil
}
