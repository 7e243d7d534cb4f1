package outbound

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"
)

const (
	// resolutionDelay is how long the addresses of both families are waited for
	// once those of IPv4 are there (RFC 8305, section 3).
	resolutionDelay = 50 * time.Millisecond
	// lateGrace is how long they are waited for once all others have failed.
	lateGrace = 2 * time.Second
)

// Resolver looks names up as a *net.Resolver does.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// names is a lookup under way: of all addresses and, beside it, of IPv4's alone.
//
// The resolver gives all addresses only when both answers are there, and a lost
// one costs it 5 s a try. So IPv4's are asked for as well, and used where they are
// alone. The like is not done for IPv6: an empty answer lets the resolver go on
// through the search list of resolv.conf, where the name may be another host's. For
// the same reason IPv4's are asked for by the absolute name, where that comes first.
type names struct {
	cancel  context.CancelFunc
	running sync.WaitGroup
	all     chan answer
	four    chan answer
	bind    netip.Addr
	late    chan []netip.Addr // what all came to, where first did not wait for it; else nil
}

type answer struct {
	addrs []netip.Addr
	err   error
}

// lookUp begins a lookup, which stop ends. bind, if valid, names the family that
// is wanted.
func lookUp(ctx context.Context, r Resolver, host string, bind netip.Addr) *names {
	ctx, cancel := context.WithCancel(ctx)
	n := &names{cancel: cancel, all: make(chan answer, 1), four: make(chan answer, 1), bind: bind}
	ask := func(network, host string, to chan<- answer) {
		n.running.Go(func() {
			addrs, err := r.LookupNetIP(ctx, network, host)
			to <- answer{n.wanted(addrs), err}
		})
	}
	ask("ip", host, n.all)
	if !bind.Is6() {
		ask("ip4", absolute(host), n.four)
	}
	return n
}

// wanted leaves the addresses of bind's family, each once and in its plain form.
func (n *names) wanted(addrs []netip.Addr) []netip.Addr {
	var out []netip.Addr
	for _, ip := range addrs {
		ip = ip.Unmap()
		if (!n.bind.IsValid() || n.bind.Is4() == ip.Is4()) && !slices.Contains(out, ip) {
			out = append(out, ip)
		}
	}
	return out
}

// first returns the addresses to begin with. The lookup of all decides; late
// brings it where it was not waited for.
func (n *names) first(ctx context.Context) ([]netip.Addr, error) {
	var four []netip.Addr
	var delay <-chan time.Time
	answers := n.four
	for {
		select {
		case a := <-n.all:
			if a.err != nil && len(four) > 0 {
				return four, nil
			}
			return a.addrs, a.err
		case a := <-answers:
			answers = nil
			if len(a.addrs) > 0 {
				four, delay = a.addrs, time.After(resolutionDelay)
			}
		case <-delay:
			n.follow()
			return four, nil
		case <-ctx.Done():
			if a := <-n.all; a.err != nil {
				return nil, a.err // the resolver's word for it
			}
			return nil, context.Cause(ctx)
		}
	}
}

// follow lets late bring what the lookup of all comes to.
func (n *names) follow() {
	late := make(chan []netip.Addr, 1)
	n.late = late
	n.running.Go(func() {
		a := <-n.all
		late <- a.addrs
	})
}

// stop ends the lookup.
func (n *names) stop() {
	n.cancel()
	n.running.Wait()
}
