package targets

import (
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/tunneld/tunneld/internal/cidr"
)

// ownAge is how old may be what is known of this machine's addresses. To list them takes
// 0.15 ms with four of them, and 8 ms with a thousand; a check that finds them listed, 0.5 µs.
const ownAge = 2 * time.Second

// Own are the addresses of this machine, as they were some seconds ago at most. It is safe
// for concurrent use. See NewOwn.
type Own struct {
	list Lister

	mu     sync.Mutex
	listed time.Time
	single map[netip.Addr]bool
	nets   []netip.Prefix
}

// Lister lists networks of which this machine has every address.
type Lister func() ([]netip.Prefix, error)

// NewOwn returns the addresses, which are listed when they are needed; nil: those of the
// interfaces.
func NewOwn(list Lister) *Own {
	if list == nil {
		list = ownNetworks
	}
	return &Own{list: list}
}

// network returns the network of this machine's own addresses that has the address; invalid:
// it is not this machine's. After an error that is not known.
func (o *Own) network(a netip.Addr) (netip.Prefix, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if time.Since(o.listed) >= ownAge {
		if err := o.renew(); err != nil {
			return netip.Prefix{}, err
		}
	}
	if o.single[a] {
		return cidr.Of(a), nil
	}
	for _, n := range o.nets {
		if n.Contains(a) {
			return n, nil
		}
	}
	return netip.Prefix{}, nil
}

// Check returns why the addresses cannot be listed, or nil.
func (o *Own) Check() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.renew()
}

// renew lists them. After an error nothing is known, and the next one tries again. It is
// called with mu held.
func (o *Own) renew() error {
	o.listed, o.single, o.nets = time.Time{}, map[netip.Addr]bool{}, nil
	all, err := o.list()
	if err != nil {
		return err
	}
	for _, n := range all {
		if n.IsSingleIP() {
			o.single[n.Addr()] = true
		} else {
			o.nets = append(o.nets, n)
		}
	}
	o.listed = time.Now()
	return nil
}

// ownNetworks lists the addresses of all interfaces. Of those of a loopback interface the
// whole network is this machine's: Linux routes it so (fib_add_ifaddr). The rest of IPv6's
// there nobody can reach.
func ownNetworks() ([]netip.Prefix, error) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	all, err := networks(addrs)
	if err != nil {
		return nil, err
	}
	for i, n := range all {
		all[i] = cidr.Of(n.Addr())
	}
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	for _, i := range interfaces {
		if i.Flags&net.FlagLoopback == 0 {
			continue
		}
		addrs, err := i.Addrs()
		if err != nil {
			return nil, err
		}
		whole, err := networks(addrs)
		if err != nil {
			return nil, err
		}
		for _, n := range whole {
			all = append(all, n.Masked())
		}
	}
	return all, nil
}

// networks are addresses of interfaces with the length of their network.
func networks(addrs []net.Addr) (all []netip.Prefix, err error) {
	for _, a := range addrs {
		n, err := netip.ParsePrefix(a.String())
		if err != nil {
			return nil, err
		}
		all = append(all, n)
	}
	return all, nil
}
