package config

import (
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/tunneld/tunneld/core/internal/route"
	"github.com/tunneld/tunneld/core/internal/tunnel"
	"github.com/tunneld/tunneld/internal/hostname"
	"github.com/tunneld/tunneld/internal/schema"
)

// fdNameRE is what systemd allows in FileDescriptorName=, but for what nobody writes.
var fdNameRE = regexp.MustCompile(`^[A-Za-z0-9_.@-]{1,255}$`)

// InheritedName returns the name in an address "fd://NAME": that of a socket that the
// daemon is given at its start.
func InheritedName(address string) (name string, ok bool) {
	return strings.CutPrefix(address, "fd://")
}

// listenAddress is where a socket listens.
type listenAddress struct {
	fd   string     // the name of an inherited socket; the others are unset
	host string     // in lower case
	ip   netip.Addr // unset where host is a name
	port uint16
}

func parseListenAddress(s string) (listenAddress, bool) {
	if name, ok := InheritedName(s); ok {
		return listenAddress{fd: name}, fdNameRE.MatchString(name)
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return listenAddress{}, false
	}
	a := listenAddress{host: strings.ToLower(host)}
	var ok bool
	if a.port, ok = route.ParsePort(port); !ok {
		return a, false
	}
	switch {
	case host == "":
		a.ip = netip.IPv6Unspecified()
	case route.ValidHost(host):
		if ip, err := netip.ParseAddr(host); err == nil {
			a.ip = ip.Unmap()
		}
	default:
		return a, false
	}
	return a, true
}

// loopback says whether only this machine reaches the address. Of names only
// localhost is known to be so; others are not resolved here.
func (a listenAddress) loopback() bool { return a.host == "localhost" || a.ip.IsLoopback() }

// overlaps says whether the two cannot be bound at once. The unspecified
// address takes all, of both families: that is how Go listens on it.
func (a listenAddress) overlaps(b listenAddress) bool {
	switch {
	case a.fd != "" || b.fd != "":
		return a.fd == b.fd
	case a.port != b.port || a.port == 0:
		return false
	case a.ip.IsUnspecified() || b.ip.IsUnspecified() || a.host == b.host:
		return true
	case a.ip.IsValid() && b.ip.IsValid():
		return a.ip == b.ip
	}
	named, other := a, b
	if named.ip.IsValid() {
		named, other = b, a
	}
	return named.host == "localhost" && (other.ip == netip.AddrFrom4([4]byte{127, 0, 0, 1}) || other.ip == netip.IPv6Loopback())
}

// listenPlace is an address that is to be bound, and by whom.
type listenPlace struct {
	address listenAddress
	block   string // its header
	at      hcl.Range
}

// address checks the attribute address of a block that listens.
func (p *parser) address(b *hclsyntax.Block, id string, v schema.Values) (listenAddress, bool) {
	written, given := v["address"].(string)
	if !given {
		return listenAddress{}, false
	}
	at := locate(b, "address")
	a, ok := parseListenAddress(written)
	if ok && a.fd != "" && id == "metrics" {
		ok = false // only listeners take sockets over
	}
	if !ok {
		p.errorAt(at, `Wrong value for "address"`, `Write host:port, with a port from 0 (any) to 65535: "127.0.0.1:5432", "[::1]:5432", "localhost:5432".`)
		return a, false
	}
	if p.src.blocks[id] == b {
		p.listen = append(p.listen, listenPlace{a, headerText(b.Type, b.Labels), at})
	}
	return a, true
}

// addresses reports sockets that cannot be bound at once.
func (p *parser) addresses() {
	byPort := map[uint16][]listenPlace{}
	for _, l := range p.listen {
		for _, earlier := range byPort[l.address.port] {
			if l.address.overlaps(earlier.address) {
				p.errorAt(l.at, "Two listeners on one address",
					fmt.Sprintf("It overlaps the address of %s in %s on line %d. Give one of them another port.", earlier.block, earlier.at.Filename, earlier.at.Start.Line))
				break
			}
		}
		byPort[l.address.port] = append(byPort[l.address.port], l)
	}
}

// parseTarget reads a target: host:port, or a label for upstreams that need no
// target. problem is empty, or a sentence for the user.
func parseTarget(s string) (t tunnel.Target, problem string) {
	const want = `Write host:port: "orders-db.corp:5432", "10.1.2.3:5432", "[fd00::1]:5432". A name alone is a label, for upstreams that need no target.`
	if strings.Contains(s, "://") {
		return t, "It is a URL. " + want
	}
	host, port, isLabel := s, "", !strings.Contains(s, ":")
	if !isLabel {
		var err error
		if host, port, err = net.SplitHostPort(s); err != nil {
			return t, want
		}
	}
	host, err := hostname.ASCII(host)
	switch {
	case err != nil:
		return t, route.NoName
	case !route.ValidHost(host):
		return t, want
	case isLabel:
		return tunnel.Target{Host: host}, ""
	}
	n, ok := route.ParsePort(port)
	if !ok || n == 0 {
		return t, "A port lies between 1 and 65535. " + want
	}
	return tunnel.Target{Host: host, Port: n}, ""
}
