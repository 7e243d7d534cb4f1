package engine

import (
	"context"
	"errors"
	"slices"

	"github.com/tunneld/tunneld/core/diag"
)

// permit gives the unix sockets that stay the permissions that the configuration says.
// Those that were bound have them.
func (b *binding) permit() (diags diag.Diagnostics) {
	for _, l := range b.cfg.Listeners {
		for _, s := range b.listening(l.ID()) {
			was, ok := s.socket.Access()
			if !ok || was == l.Access {
				continue
			}
			if err := s.socket.SetAccess(l.Access); err != nil {
				path := l.AddressPath(slices.Index(l.Addresses, b.claims[s].written))
				diags = append(diags, obstacle(b.cfg, listenerBlock(l.ID()), path, "the permissions of the socket cannot be changed", s.bound().String()+": "+err.Error()+": "+bindHint(err)))
				continue
			}
			b.permitted[s] = was
		}
	}
	return diags
}

// revoke undoes permit.
func (b *binding) revoke(context.Context) error {
	var errs []error
	for s, was := range b.permitted {
		errs = append(errs, s.socket.SetAccess(was))
	}
	return errors.Join(errs...)
}
