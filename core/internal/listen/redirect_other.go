//go:build !linux

package listen

import (
	"errors"
	"net/netip"
)

// destinations are not to be known here, where no configuration has such a listener.
func destinations(*Conn) (original, local netip.AddrPort, err error) {
	return original, local, errors.ErrUnsupported
}
