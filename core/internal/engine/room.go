package engine

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"github.com/tunneld/tunneld/core/internal/config"
)

// inRoom calls bind, which binds address. Where an old socket that the next
// generation does not use overlaps with it (127.0.0.1:P and 0.0.0.0:P), that one
// is closed first.
func (b *binding) inRoom(address netip.AddrPort, bind func() error) error {
	err := bind()
	for old := range b.leaving {
		if !errors.Is(err, syscall.EADDRINUSE) {
			break // what is left is not in the way
		}
		if !overlap(old.bound(), address) {
			continue
		}
		delete(b.leaving, old)
		if closeErr := old.vacate(); closeErr != nil {
			return errors.Join(err, closeErr)
		}
		err = bind()
	}
	return err
}

// overlap says whether the one may be in the way of the other. The unspecified
// address takes both families: that is how Go listens on it.
func overlap(bound, address netip.AddrPort) bool {
	return bound.Port() == address.Port() &&
		(address.Addr().IsUnspecified() || bound.Addr().IsUnspecified() || address.Addr() == bound.Addr())
}

// cannotBind is told of a block whose address cannot be bound.
func cannotBind(cfg *config.Config, blockID string, err error) config.Diagnostic {
	return obstacle(cfg, blockID, "address", "the address cannot be bound", err.Error()+": "+bindHint(err))
}

// isLacking is told of a block whose address is a name, of which the machine has
// one address and not ip.
func isLacking(cfg *config.Config, s *site, ip netip.Addr) config.Diagnostic {
	host, port, _ := net.SplitHostPort(s.written) // survey has split it
	d := cfg.BlockDiagnostic(s.block, "address", "not all addresses of the name are listened on",
		fmt.Sprintf("%s is also %s, which this machine does not have: clients that take that one are refused. Switch it on, take it out of /etc/hosts or DNS, or write the other address with port %s.", host, ip, port))
	d.Warning = true
	return d
}

func bindHint(err error) string {
	var notFound *net.DNSError
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return "another program holds it; find it with ss -ltnp, or choose another port"
	case errors.Is(err, syscall.EACCES):
		return "ports below 1024 need CAP_NET_BIND_SERVICE"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return "this machine does not have that address"
	case errors.As(err, &notFound):
		return "check the name, in /etc/hosts and DNS"
	default:
		return "check the address"
	}
}
