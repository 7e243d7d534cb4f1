package engine

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"

	"github.com/tunneld/tunneld/core/diag"
	"github.com/tunneld/tunneld/core/internal/config"
	"github.com/tunneld/tunneld/internal/unixsock"
)

// inherited is the endpoint of address i of a block, "fd://NAME", or what is wrong with it.
func (b *binding) inherited(w *wanted, i int, name string) (*endpoint, *diag.Diagnostic) {
	written, path := w.addresses[i], w.path(i)
	problem := func(summary, detail string) (*endpoint, *diag.Diagnostic) {
		d := obstacle(b.cfg, w.block, path, summary, detail)
		return nil, &d
	}
	table := b.engine.opts.Inherited
	sockets := table.Sockets(name)
	if len(sockets) == 0 {
		return problem("there is no such socket", fmt.Sprintf("%s: the daemon inherited no socket of this name, but: %s. Check FileDescriptorName= and Service= in the .socket unit; a new socket needs a restart.",
			written, cmp.Or(strings.Join(table.Names(), ", "), "none at all")))
	}
	s := &endpoint{block: w.block, written: written, path: path, inherited: true, sockets: make([]boundSocket, len(sockets))}
	for _, one := range sockets {
		if one.Err != nil {
			return problem("the socket cannot be used", fmt.Sprintf("%s: %s. A listener takes a TCP or unix socket that listens: ListenStream= with an address or a path, and Accept=no.", written, one.Err))
		}
		at := placeOf(one.Addr)
		if w.exposedAt(at) {
			return problem(config.OpenSummary, fmt.Sprintf("%s is bound to %s. %s", written, at, w.exposed))
		}
		s.places = append(s.places, at)
	}
	return s, nil
}

// listOf is the first list of a listener that keeps clients out by their addresses.
func listOf(l config.Listener) string {
	switch {
	case !l.Allow.IsEmpty():
		return byAllow
	case !l.Deny.IsEmpty():
		return byDeny
	}
	return ""
}

// unlisted reports a block whose clients' addresses are to be looked at, and whose sockets
// turn out to be unix sockets, all of them inherited: the configuration has checked the
// others.
func (b *binding) unlisted(w *wanted) diag.Diagnostics {
	addressed := func(p place) bool { return p.path == "" }
	if w.list == "" || len(w.endpoints) < len(w.addresses) ||
		slices.ContainsFunc(w.endpoints, func(s *endpoint) bool { return slices.ContainsFunc(s.places, addressed) }) {
		return nil
	}
	return diag.Diagnostics{obstacle(b.cfg, w.block, w.list, fmt.Sprintf("%q without addresses", w.list),
		"The sockets that the daemon inherited for it are unix sockets, whose clients have no IP address. SocketMode=, SocketUser= and SocketGroup= in the .socket unit say who may connect. Remove it.")}
}

// tellUnused warns of sockets that the daemon was given and no listener takes: clients
// wait in their queues for nothing.
func (b *binding) tellUnused() {
	used := map[string]bool{}
	for _, l := range b.cfg.Listeners {
		for _, address := range l.Addresses {
			if name, ok := config.InheritedName(address); ok {
				used[name] = true
			}
		}
	}
	for _, name := range b.engine.opts.Inherited.Names() {
		if !used[name] {
			b.engine.log.Warn("an inherited socket has no listener: clients wait in its queue", "name", name,
				"hint", fmt.Sprintf("write address = \"fd://%s\" in a listener, or stop its .socket unit", name))
		}
	}
}

// inheritedHint says what to do where err is that an address of the endpoint is taken, by
// a socket that the daemon was given; otherwise it is empty.
func (b *binding) inheritedHint(s *endpoint, err error) string {
	var atPath *unixsock.Error
	if served := errors.As(err, &atPath) && atPath.Served; !served && !errors.Is(err, syscall.EADDRINUSE) {
		return ""
	}
	for _, name := range b.engine.opts.Inherited.Names() {
		for _, one := range b.engine.opts.Inherited.Sockets(name) {
			if one.Err != nil {
				continue
			}
			at := placeOf(one.Addr)
			if slices.ContainsFunc(s.places, at.overlaps) {
				instead := fmt.Sprintf("write address = \"fd://%s\"", name)
				if s.block == metricsBlock {
					instead = "choose another port"
				}
				return fmt.Sprintf("the daemon inherited a socket at %s, %q, and keeps it: %s, or remove it from the .socket unit and restart", at, name, instead)
			}
		}
	}
	return ""
}
