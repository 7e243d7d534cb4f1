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
)

// tenant is a bound socket of the generation in force, a listener's or one of the
// metrics, or one that the next generation is to have.
type tenant interface {
	// site is for which address of which block it was bound.
	site() *spot
	bound() netip.AddrPort
	// vacate closes the socket before its successors are in force. An undo binds
	// it again.
	vacate() error
	// discard closes a socket that has not served yet.
	discard() error
}

// spot is one address of what a block's address comes to: of a name, for
// instance, that has several.
type spot struct {
	block   string // "listener.tcp.orders"
	written string // "localhost:5432"
	asked   netip.AddrPort
	closed  bool // by vacate
}

func (s *spot) site() *spot { return s }

// site is an address as a block has it, and what serves it.
type site struct {
	block   string
	written string
	named   bool             // its host is a name, of which the machine may lack an address
	addrs   []netip.AddrPort // port 0: any, the same for all
	tenants []tenant         // by the position in addrs; nil: not bound
}

// lookup returns the addresses of a name.
type lookup func(ctx context.Context, host string) ([]netip.Addr, error)

func systemLookup(ctx context.Context, host string) ([]netip.Addr, error) {
	return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
}

// survey finds out what an address comes to: "host:port", as the configuration
// has checked it.
func survey(ctx context.Context, find lookup, block, written string) (*site, error) {
	host, text, err := net.SplitHostPort(written)
	if err != nil {
		return nil, err
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return nil, err
	}
	s := &site{block: block, written: written}
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
		s.addrs = append(s.addrs, netip.AddrPortFrom(ip.Unmap(), uint16(port)))
	}
	s.tenants = make([]tenant, len(s.addrs))
	return s, nil
}

// asBound is the site of those of the old sockets that the block has for the
// address already; nil: there are none.
func asBound(old []tenant, block, written string) *site {
	s := &site{block: block, written: written}
	for _, t := range old {
		if t.site().block == block && t.site().written == written {
			s.addrs = append(s.addrs, t.bound())
		}
	}
	if s.addrs == nil {
		return nil
	}
	s.tenants = make([]tenant, len(s.addrs))
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

// reuse takes those of the old sockets that serve the site as well, and returns
// the others: a socket for the same address, whatever was written, and of a port
// that the system picked one that the same block asked for.
func (s *site) reuse(old []tenant) []tenant {
	for i, addr := range s.addrs {
		if addr.Port() != 0 {
			break
		}
		if known := asBound(old, s.block, s.written); known != nil {
			s.addrs[i] = netip.AddrPortFrom(addr.Addr(), known.addrs[0].Port())
		}
	}
	for i, addr := range s.addrs {
		same := func(t tenant) bool { return sameAddress(t.bound(), addr) || sameAddress(t.site().asked, addr) }
		if j := slices.IndexFunc(old, same); addr.Port() != 0 && j >= 0 {
			s.tenants[i] = old[j]
			old = slices.Delete(old, j, j+1)
		}
	}
	return old
}

// sameAddress says whether a and b are bound as one: an unspecified address is
// that of both families.
func sameAddress(a, b netip.AddrPort) bool {
	return a == b || a.Port() == b.Port() && a.Addr().IsUnspecified() && b.Addr().IsUnspecified()
}

// portTries bounds how often the system picks a port anew that is to be free on
// several addresses.
const portTries = 16

// occupy binds what nobody serves yet. lacking are the addresses of a name that
// this machine does not have, while it has another.
func (s *site) occupy(b *binding, open func(netip.AddrPort, *spot) (tenant, error)) (lacking []netip.Addr, err error) {
	for range portTries {
		var fresh []tenant
		if fresh, lacking, err = s.bind(b, open); err == nil {
			b.bound = append(b.bound, fresh...)
			return lacking, nil
		}
		for _, t := range fresh {
			err = errors.Join(err, t.discard())
		}
		if s.addrs[0].Port() != 0 || len(fresh) == 0 || !errors.Is(err, syscall.EADDRINUSE) {
			break
		}
	}
	return nil, err
}

// bind is one try of occupy. Where it fails the site is as it was, and fresh are
// to be closed.
func (s *site) bind(b *binding, open func(netip.AddrPort, *spot) (tenant, error)) (fresh []tenant, lacking []netip.Addr, err error) {
	tenants := slices.Clone(s.tenants)
	var lackErr error
	for i, asked := range s.addrs {
		if tenants[i] != nil {
			continue
		}
		at := asked
		if asked.Port() == 0 && len(fresh) > 0 {
			at = netip.AddrPortFrom(asked.Addr(), fresh[0].bound().Port())
		}
		err := b.inRoom(at, func() (err error) {
			tenants[i], err = open(at, &spot{block: s.block, written: s.written, asked: asked})
			return err
		})
		switch {
		case err == nil:
			fresh = append(fresh, tenants[i])
		case s.named && (errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.EAFNOSUPPORT)):
			tenants[i], lackErr = nil, err
			lacking = append(lacking, asked.Addr())
		default:
			return fresh, nil, err
		}
	}
	if len(lacking) == len(s.addrs) {
		return nil, nil, lackErr
	}
	s.tenants = tenants
	return fresh, lacking, nil
}
