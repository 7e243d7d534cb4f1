package outbound

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/tunneld/tunneld/internal/neterr"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

const (
	// attemptDelay is how long an attempt has to itself before the next address is
	// tried beside it (RFC 8305, section 5: the "Connection Attempt Delay").
	attemptDelay = 250 * time.Millisecond
	// maxAttempts bounds the attempts under way at once: each is a socket, and the
	// number of addresses is the name server's.
	maxAttempts = 32
	// maxAddresses bounds the addresses that an error lists.
	maxAddresses = 8
)

// Race connects to a name by all of its addresses, both families in turn (RFC
// 8305), and to an IP literal. C is what an attempt makes.
type Race[C any] struct {
	// Resolver looks names up; nil: net.DefaultResolver.
	Resolver Resolver
	// Bind is the address that attempts are made from: only addresses of its
	// family are tried. The zero Addr: any.
	Bind netip.Addr
	// Allow is asked of each address just before it is tried, which it is not if that returns
	// an error. Nil: all are tried.
	Allow func(netip.Addr) error
	// Enter is told the stage that begins; nil: nobody is.
	Enter func(pluginv1.Stage)
	// Attempt connects to one address. Several run at once.
	Attempt func(ctx context.Context, to netip.AddrPort) (C, error)
	// Discard takes what a late attempt made all the same.
	Discard func(C)
}

// Connect returns the first connection that an attempt makes to address,
// "host:port". When it returns, no attempt and no lookup is under way, and all
// other connections are discarded. Its errors are a *net.OpError that holds a
// *net.DNSError where the name was not resolved, and a *ConnectError otherwise.
func (r Race[C]) Connect(ctx context.Context, address string) (made C, err error) {
	host, port, err := splitAddress(address)
	if err != nil {
		return made, dialError(err)
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		if err := r.allow(ip); err != nil {
			return made, &ConnectError{Denied: []error{err}}
		}
		if !r.takes(ip) {
			return made, &ConnectError{Tried: []error{r.otherFamily(host)}}
		}
		r.enter(pluginv1.Stage_STAGE_CONNECT)
		if made, err = r.Attempt(ctx, netip.AddrPortFrom(ip, port)); err != nil {
			return made, &ConnectError{Tried: []error{err}}
		}
		return made, nil
	}
	r.enter(pluginv1.Stage_STAGE_RESOLVE)
	names := lookUp(ctx, r.resolver(), host, r.Bind)
	defer names.stop()
	first, err := names.first(ctx)
	if err != nil {
		return made, dialError(err)
	}
	if len(first) == 0 {
		return made, &ConnectError{Tried: []error{r.otherFamily(host)}}
	}
	f := &field[C]{race: r, port: port, names: names, results: make(chan result[C])}
	f.add(first)
	return f.run(ctx)
}

func (r Race[C]) allow(ip netip.Addr) error {
	if r.Allow == nil {
		return nil
	}
	return r.Allow(ip)
}

func (r Race[C]) enter(s pluginv1.Stage) {
	if r.Enter != nil {
		r.Enter(s)
	}
}

func (r Race[C]) resolver() Resolver {
	if r.Resolver != nil {
		return r.Resolver
	}
	return net.DefaultResolver
}

func (r Race[C]) takes(ip netip.Addr) bool {
	return !r.Bind.IsValid() || r.Bind.Is4() == ip.Unmap().Is4()
}

// otherFamily is a target that cannot be reached from Bind.
func (r Race[C]) otherFamily(host string) error {
	other, own := "IPv6", "IPv4"
	if !r.Bind.Is4() {
		other, own = own, other
	}
	return &neterr.Explained{
		Meaning: neterr.Meaning{Reason: pluginv1.Reason_REASON_UNREACHABLE, Retryable: true, Hint: "set bind to an address of the other family, or leave it out"},
		Message: fmt.Sprintf("%s has only %s addresses, and bind is an %s one", host, other, own),
	}
}

func splitAddress(address string) (host string, port uint16, err error) {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0, err
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || n == 0 || host == "" {
		return "", 0, &net.AddrError{Err: "not host:port with a port from 1 to 65535", Addr: address}
	}
	return host, uint16(n), nil
}

func dialError(err error) error { return &net.OpError{Op: "dial", Net: "tcp", Err: err} }

// ConnectError is a name, or an IP literal, of which no address could be
// connected to. There is at least one error in it.
type ConnectError struct {
	// Tried are the errors of the attempts, in the order in which the addresses
	// were tried.
	Tried []error
	// Denied are those of Allow.
	Denied []error
}

// Error returns the first attempt's text, and the addresses of the others with
// what became of them. What was denied is in it only if there was no attempt: whether
// everybody may read of it is for the caller to say.
func (e *ConnectError) Error() string {
	all := e.all()
	if len(all) == 1 {
		return all[0].Error()
	}
	var others []string
	for _, err := range all[1:min(len(all), maxAddresses)] {
		others = append(others, strings.TrimPrefix(err.Error(), "dial tcp "))
	}
	if more := len(all) - maxAddresses; more > 0 {
		others = append(others, fmt.Sprintf("and %d more", more))
	}
	if len(e.Tried) == 0 {
		return fmt.Sprintf("%s; %s", all[0], strings.Join(others, "; "))
	}
	return fmt.Sprintf("%s (also tried %s)", all[0], strings.Join(others, "; "))
}

// Unwrap returns the first attempt's error: it is of the address that the system
// prefers, and its reason is that of all.
func (e *ConnectError) Unwrap() error { return e.all()[0] }

// all are the errors of the attempts, or of what kept them from being made.
func (e *ConnectError) all() []error {
	if len(e.Tried) > 0 {
		return e.Tried
	}
	return e.Denied
}

// field is a race under way. One goroutine holds it.
type field[C any] struct {
	race    Race[C]
	port    uint16
	names   *names
	results chan result[C]

	next  *time.Timer // when the next attempt is due
	begun time.Time   // the last attempt

	waiting []netip.Addr
	known   map[netip.Addr]bool
	last    netip.Addr // tried last
	errs    []error    // by the order of the attempts; nil: still under way
	denied  []error
	running int
}

type result[C any] struct {
	index int
	made  C
	err   error
}

// add takes addresses that the resolver found into the race, those that are known
// excepted, with the families in turn (RFC 8305, section 4).
func (f *field[C]) add(found []netip.Addr) {
	if f.known == nil {
		f.known = make(map[netip.Addr]bool, len(found))
	}
	all := f.waiting
	for _, ip := range found {
		if !f.known[ip] {
			f.known[ip] = true
			all = append(all, ip)
		}
	}
	f.waiting = inTurn(all, f.last)
}

// inTurn orders addresses so that the families alternate, each in its own order,
// beginning with the one that was not tried last, or else with the first's.
func inTurn(all []netip.Addr, last netip.Addr) []netip.Addr {
	if len(all) == 0 {
		return nil
	}
	four := all[0].Is4()
	if last.IsValid() {
		four = !last.Is4()
	}
	var queues [2][]netip.Addr
	for _, ip := range all {
		i := 0
		if ip.Is4() != four {
			i = 1
		}
		queues[i] = append(queues[i], ip)
	}
	out := make([]netip.Addr, 0, len(all))
	for i := 0; len(out) < len(all); i = 1 - i {
		if q := queues[i]; len(q) > 0 {
			out, queues[i] = append(out, q[0]), q[1:]
		}
	}
	return out
}

// run tries the addresses until one is connected to, none is left, or ctx is done.
func (f *field[C]) run(ctx context.Context) (made C, err error) {
	inner, cancel := context.WithCancel(ctx)
	defer f.drain(cancel)
	f.next = time.NewTimer(attemptDelay)
	defer f.next.Stop()
	late, done := f.names.late, ctx.Done()
	var patience <-chan time.Time
	f.start(inner)
	for {
		switch {
		case f.running > 0 || len(f.waiting) > 0 && ctx.Err() == nil:
		case late == nil || ctx.Err() != nil:
			return made, f.failed(ctx)
		case patience == nil:
			patience = time.After(lateGrace)
		}
		select {
		case <-f.next.C:
			f.start(inner)
		case r := <-f.results:
			f.running--
			switch {
			case r.err != nil:
			case ctx.Err() == nil:
				return r.made, nil
			default:
				f.race.Discard(r.made)
				r.err = dialError(context.Cause(ctx))
			}
			f.errs[r.index] = r.err
			if ctx.Err() == nil {
				f.start(inner) // what has failed leaves its time to the next
			}
		case found := <-late:
			late = nil // it comes once
			f.add(found)
			f.next.Reset(attemptDelay - time.Since(f.begun))
		case <-patience:
			late = nil
		case <-done:
			done = nil // each attempt ends by itself, and says why
		}
	}
}

// start begins the next attempt, if there is one to begin.
func (f *field[C]) start(ctx context.Context) {
	if len(f.waiting) > 0 && f.running == maxAttempts {
		f.next.Reset(attemptDelay)
		return
	}
	if !f.take() {
		return
	}
	f.next.Reset(attemptDelay)
	f.begun = time.Now()
	if len(f.errs) == 0 {
		f.race.enter(pluginv1.Stage_STAGE_CONNECT)
	}
	to, index := netip.AddrPortFrom(f.last, f.port), len(f.errs)
	f.errs = append(f.errs, nil)
	f.running++
	go func() {
		made, err := f.race.Attempt(ctx, to)
		f.results <- result[C]{index, made, err}
	}()
}

// take makes the next address that is allowed the last one; false: none waits.
func (f *field[C]) take() bool {
	for len(f.waiting) > 0 {
		next := f.waiting[0]
		f.waiting = f.waiting[1:]
		if err := f.race.allow(next); err != nil {
			f.denied = append(f.denied, err)
			continue
		}
		f.last = next
		return true
	}
	return false
}

// drain ends the attempts that are left and waits for them.
func (f *field[C]) drain(cancel context.CancelFunc) {
	cancel()
	for ; f.running > 0; f.running-- {
		if r := <-f.results; r.err == nil {
			f.race.Discard(r.made)
		}
	}
}

func (f *field[C]) failed(ctx context.Context) error {
	if len(f.errs) == 0 && len(f.denied) == 0 {
		return dialError(context.Cause(ctx))
	}
	return &ConnectError{Tried: f.errs, Denied: f.denied}
}
