package listen

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/tunneld/tunneld/internal/bare"
)

// destinations are the address that a client has connected to, before netfilter redirected
// it, and the one that it was redirected to.
func destinations(c *Conn) (original, local netip.AddrPort, err error) {
	controlErr := c.control(func(fd uintptr) { original, local, err = destinationsOf(int(fd)) })
	return original, local, errors.Join(controlErr, err)
}

// control calls f with the descriptor of the client's socket, under whatever is around it.
func (c *Conn) control(f func(fd uintptr)) error {
	if c.socket != nil {
		c.socket.Control(f)
		return nil
	}
	tcp, ok := bare.Under(c.stream.(net.Conn)).(syscall.Conn) // Talk has made it one
	if !ok {
		return fmt.Errorf("original destination: the connection is a %T", c.stream)
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Control(f)
}

func destinationsOf(fd int) (original, local netip.AddrPort, err error) {
	name, err := syscall.Getsockname(fd)
	if err != nil {
		return original, local, os.NewSyscallError("getsockname", err)
	}
	switch name := name.(type) {
	case *syscall.SockaddrInet4:
		local = netip.AddrPortFrom(netip.AddrFrom4(name.Addr), uint16(name.Port))
	case *syscall.SockaddrInet6:
		local = netip.AddrPortFrom(netip.AddrFrom16(name.Addr).Unmap(), uint16(name.Port))
	}
	// To a socket of both families an IPv4 client's connection is IPv4 in this, too.
	if local.Addr().Is4() {
		original, err = original4(fd)
	} else {
		original, err = original6(fd)
	}
	switch {
	case errors.Is(err, unix.ENOENT):
		err = fmt.Errorf("%w: %w", &mistake{fmt.Sprintf("the client was not redirected to %s", local), notAProxy}, err)
	case errors.Is(err, unix.ENOPROTOOPT), errors.Is(err, unix.EOPNOTSUPP):
		err = fmt.Errorf("%w: %w", &mistake{
			"this system does not keep the destinations of redirected connections",
			"the kernel needs connection tracking (modprobe nf_conntrack), which the rule of nftables that redirects loads as well. Sandboxes such as gVisor have none",
		}, err)
	}
	return original, local, err
}

// original4 asks for SO_ORIGINAL_DST (linux/netfilter_ipv4.h), a sockaddr_in. x/sys has no
// function for one; this takes as many bytes and more.
func original4(fd int) (netip.AddrPort, error) {
	b, err := unix.GetsockoptIPv6Mreq(fd, unix.SOL_IP, unix.SO_ORIGINAL_DST)
	if err != nil {
		return netip.AddrPort{}, os.NewSyscallError("getsockopt SO_ORIGINAL_DST", err)
	}
	raw := b.Multiaddr // the family, the port and the address
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte(raw[4:8])), binary.BigEndian.Uint16(raw[2:4])), nil
}

// original6 asks for IP6T_SO_ORIGINAL_DST (linux/netfilter_ipv6/ip6_tables.h), which has the
// same number. It is a sockaddr_in6, with which an IPv6MTUInfo begins.
func original6(fd int) (netip.AddrPort, error) {
	b, err := unix.GetsockoptIPv6MTUInfo(fd, unix.SOL_IPV6, unix.SO_ORIGINAL_DST)
	if err != nil {
		return netip.AddrPort{}, os.NewSyscallError("getsockopt IP6T_SO_ORIGINAL_DST", err)
	}
	addr := netip.AddrFrom16(b.Addr.Addr)
	if b.Addr.Scope_id != 0 {
		addr = addr.WithZone(strconv.FormatUint(uint64(b.Addr.Scope_id), 10))
	}
	var port [2]byte // as it is in memory, in the network's order
	binary.NativeEndian.PutUint16(port[:], b.Addr.Port)
	return netip.AddrPortFrom(addr, binary.BigEndian.Uint16(port[:])), nil
}
