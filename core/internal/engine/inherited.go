package engine

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
	"syscall"

	"github.com/tunneld/tunneld/core/diag"
	"github.com/tunneld/tunneld/core/internal/config"
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
			return problem("the socket cannot be used", fmt.Sprintf("%s: %s. A listener takes a TCP socket that listens: ListenStream= with an address, and Accept=no.", written, one.Err))
		}
		addr := unmapped(one.Addr)
		if w.exposedAt(addr.Addr()) {
			return problem(config.OpenSummary, fmt.Sprintf("%s is bound to %s. %s", written, addr, w.exposed))
		}
		s.addrs = append(s.addrs, addr)
	}
	return s, nil
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
	if !errors.Is(err, syscall.EADDRINUSE) {
		return ""
	}
	for _, name := range b.engine.opts.Inherited.Names() {
		for _, one := range b.engine.opts.Inherited.Sockets(name) {
			if one.Err != nil {
				continue
			}
			at := unmapped(one.Addr)
			for _, addr := range s.addrs {
				if !overlap(at, addr) {
					continue
				}
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
