package config

import (
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/tunneld/tunneld/core/internal/route"
	"github.com/tunneld/tunneld/core/internal/tunnel"
	"github.com/tunneld/tunneld/internal/hostname"
	"github.com/tunneld/tunneld/internal/schema"
	"github.com/tunneld/tunneld/internal/unixsock"
)

// fdNameRE is what systemd allows in FileDescriptorName=, but for what nobody writes.
var fdNameRE = regexp.MustCompile(`^[A-Za-z0-9_.@-]{1,255}$`)

// InheritedName returns the name in an address "fd://NAME": that of a socket that the
// daemon is given at its start.
func InheritedName(address string) (name string, ok bool) {
	return strings.CutPrefix(address, "fd://")
}

const unixScheme = "unix://"

// UnixPath returns the path in an address "unix:///path": that of a unix socket.
func UnixPath(address string) (path string, ok bool) {
	path, ok = strings.CutPrefix(address, unixScheme)
	return filepath.Clean(path), ok
}

// listenAddress is where a socket listens.
type listenAddress struct {
	fd   string     // the name of an inherited socket; the others are unset
	path string     // of a unix socket; likewise
	host string     // in lower case
	ip   netip.Addr // unset where host is a name
	port uint16
}

const wantHostPort = `Write host:port, with a port from 0 (any) to 65535: "127.0.0.1:5432", "[::1]:5432", "localhost:5432".`

// parseListenAddress reads an address. problem is empty, or a sentence for the user.
func parseListenAddress(s string) (a listenAddress, problem string) {
	a, ok := listenAddress{}, false
	if name, inherited := InheritedName(s); inherited {
		a, ok = listenAddress{fd: name}, fdNameRE.MatchString(name)
	} else if path, isUnix := strings.CutPrefix(s, unixScheme); isUnix || strings.HasPrefix(s, "/") {
		return listenAddress{path: filepath.Clean(path)}, unixProblem(path, isUnix)
	} else {
		a, ok = parseHostPort(s)
	}
	if !ok {
		return a, wantHostPort
	}
	return a, ""
}

// unixProblem says what is wrong with the path of a unix socket; empty: nothing.
func unixProblem(path string, isUnix bool) string {
	const want = `Write unix:// and an absolute path, without control characters: "unix:///run/tunneld/orders.sock".`
	switch {
	case strings.HasPrefix(path, "@"):
		return "Abstract unix sockets have no permissions: every user of this machine can connect to them, so there are none here. " + want
	case !isUnix, !cleanPath(path), strings.HasSuffix(path, "/"):
		return want
	case len(path) > unixsock.MaxPath:
		return fmt.Sprintf("The path has %d bytes, and that of a unix socket at most %d. Choose a shorter one.", len(path), unixsock.MaxPath)
	}
	return ""
}

func parseHostPort(s string) (listenAddress, bool) {
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

// beyond says whether others than this machine's users may reach the address. Of an
// inherited socket that is not known here.
func (a listenAddress) beyond() bool { return a.fd == "" && a.path == "" && !a.loopback() }

// overlaps says whether the two cannot be bound at once. The unspecified
// address takes all, of both families: that is how Go listens on it.
func (a listenAddress) overlaps(b listenAddress) bool {
	switch {
	case a.fd != "" || b.fd != "":
		return a.fd == b.fd
	case a.path != "" || b.path != "":
		return a.path == b.path
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
	element int    // which of a list it is; -1: there is no list
	at      hcl.Range
}

// listed is the attribute of listeners that has several addresses.
const listed = "addresses"

// listens reads where a listener listens. guarded says whether it is known who may come
// in.
func (p *parser) listens(l *Listener, v schema.Values, b *hclsyntax.Block, guarded bool) {
	if written, given := v["address"].(string); given {
		l.Addresses = []string{written}
		p.exposed(l, b, locate(b, "address"), -1, guarded)
	}
	if v[listed] == nil || l.Addresses != nil {
		return // that both are there was reported
	}
	l.Addresses, l.listed = v.List(listed), true
	if len(l.Addresses) == 0 {
		p.errorAt(locate(b, listed), fmt.Sprintf("%q is empty", listed), `Name where the listener listens: addresses = ["127.0.0.1:5432", "[::1]:5432"]`)
	}
	for i := range l.Addresses {
		p.exposed(l, b, locate(b, listed, strconv.Itoa(i)), i, guarded)
	}
}

// exposed checks an address of a listener, and that not everybody comes in by it unasked.
func (p *parser) exposed(l *Listener, b *hclsyntax.Block, at hcl.Range, element int, guarded bool) {
	a, ok := p.address(b, at, element, l.Addresses[max(element, 0)])
	if !ok || !a.beyond() || !guarded {
		return
	}
	if detail := l.Exposed(); detail != "" {
		if element >= 0 {
			detail = fmt.Sprintf("Element %d of %q is beyond loopback. ", element+1, listed) + detail
		}
		p.errorAt(at, OpenSummary, detail)
	}
}

// address checks an address of a block that listens.
func (p *parser) address(b *hclsyntax.Block, at hcl.Range, element int, written string) (listenAddress, bool) {
	a, problem := parseListenAddress(written)
	switch {
	case b.Type != "listener" && (a.fd != "" || a.path != ""):
		problem = wantHostPort // only listeners have these
	case b.Type == "listener" && problem == wantHostPort:
		problem += ` Or the path of a unix socket: "unix:///run/tunneld/orders.sock".`
	}
	if problem != "" {
		summary := `Wrong value for "address"`
		if element >= 0 {
			summary = wrongElement(element, listed)
		}
		p.errorAt(at, summary, problem)
		return a, false
	}
	p.listenAt(b, a, element, at)
	return a, true
}

// listenAt notes an address that a block listens on.
func (p *parser) listenAt(b *hclsyntax.Block, a listenAddress, element int, at hcl.Range) {
	if p.src.blocks[blockID(b)] == b {
		p.listen = append(p.listen, listenPlace{a, headerText(b.Type, b.Labels), element, at})
	}
}

// overlap says what an address overlaps with, and what to do.
func (l listenPlace) overlap(earlier listenPlace) (summary, detail string) {
	it, with := "It", "the address of "+earlier.block
	if l.element >= 0 {
		it = fmt.Sprintf("Element %d of %q", l.element+1, listed)
	}
	if earlier.element >= 0 {
		with = fmt.Sprintf("element %d of the addresses of %s", earlier.element+1, earlier.block)
	}
	summary, fix := "Two listeners on one address", "Give one of them another port."
	switch {
	case l.block == earlier.block:
		summary, fix = "One address twice", "Remove one of the two."
	case l.address.fd != "":
		fix = "A socket serves one listener: remove one of the two."
	case l.address.path != "":
		fix = "Give one of them another path."
	}
	return summary, fmt.Sprintf("%s overlaps %s in %s on line %d. %s", it, with, earlier.at.Filename, earlier.at.Start.Line, fix)
}

// addresses reports sockets that cannot be bound at once.
func (p *parser) addresses() {
	type bucket struct {
		text string
		port uint16
	}
	all := map[bucket][]listenPlace{}
	for _, l := range p.listen {
		of := bucket{l.address.fd + l.address.path, l.address.port}
		for _, earlier := range all[of] {
			if l.address.overlaps(earlier.address) {
				summary, detail := l.overlap(earlier)
				p.errorAt(l.at, summary, detail)
				break
			}
		}
		all[of] = append(all[of], l)
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
