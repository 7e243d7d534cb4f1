package engine

import (
	"errors"
	"net"
	"net/netip"
	"strconv"
	"syscall"

	"github.com/tunneld/tunneld/core/internal/config"
)

// tenant is a bound socket of the generation in force: a listener's, or that of
// the metrics.
type tenant interface {
	bound() netip.AddrPort
	// vacate closes the socket before its successors are in force. An undo binds
	// it again.
	vacate() error
}

// inRoom calls bind, which binds address. Where an old socket that the next
// generation does not use overlaps with it (127.0.0.1:P and 0.0.0.0:P), that one
// is closed first.
func (b *binding) inRoom(address string, bind func() error) error {
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

// overlap says whether address may be in the way of bound. A name is, with the
// same port: which address it is bound to is not known before.
func overlap(bound netip.AddrPort, address string) bool {
	host, port, err := net.SplitHostPort(address)
	if err != nil || port != strconv.Itoa(int(bound.Port())) {
		return false
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return true
	}
	// The unspecified address takes both families: that is how Go listens on it.
	return ip.IsUnspecified() || bound.Addr().IsUnspecified() || ip.Unmap() == bound.Addr().Unmap()
}

// cannotBind is told of a block whose address cannot be bound.
func cannotBind(cfg *config.Config, blockID string, err error) config.Diagnostic {
	return obstacle(cfg, blockID, "address", "the address cannot be bound", err.Error()+": "+bindHint(err))
}

func bindHint(err error) string {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return "another program holds it; find it with ss -ltnp, or choose another port"
	case errors.Is(err, syscall.EACCES):
		return "ports below 1024 need CAP_NET_BIND_SERVICE"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return "this machine does not have that address"
	default:
		return "check the address"
	}
}
