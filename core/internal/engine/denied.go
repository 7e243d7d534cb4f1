package engine

import (
	"errors"
	"net/netip"

	"github.com/tunneld/tunneld/core/internal/targets"
	"github.com/tunneld/tunneld/core/internal/tunnel"
	"github.com/tunneld/tunneld/internal/outbound"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// denied adds to the error of a dial which of the target's addresses the listener's policy has
// left out. If it was all of them, that is the error: the upstream is not to blame, and
// another one is not to try what the listener does not allow.
func (d direct) denied(e *tunnel.DialError, target tunnel.Target, err error) {
	var failed *outbound.ConnectError
	if !errors.As(err, &failed) || len(failed.Denied) == 0 {
		return
	}
	var all []*targets.Refusal
	for _, one := range failed.Denied {
		var refusal *targets.Refusal
		if errors.As(one, &refusal) {
			all = append(all, refusal)
		}
	}
	if len(all) == 0 {
		return
	}
	// The address of localhost is no news to a client either (RFC 6761, section 6.3).
	_, notIP := netip.ParseAddr(target.Host)
	open := notIP == nil || outbound.IsLoopback(target.Host)
	if len(failed.Tried) > 0 {
		if !open {
			e.Told = &tunnel.Told{Message: e.Message, Hint: e.Hint}
		}
		e.Message += "; not dialed: " + targets.List(all)
		return
	}
	full := targets.Full(target.Host, all)
	e.Stage, e.Reason, e.Retryable = pluginv1.Stage_STAGE_RESOLVE, pluginv1.Reason_REASON_DENIED, false
	if notIP == nil {
		e.Stage = pluginv1.Stage_STAGE_REQUEST
	}
	e.Message, e.Hint = full.Message, full.Hint
	if !open {
		brief := targets.Brief(target.Host, all)
		e.Told = &tunnel.Told{Message: brief.Message, Hint: brief.Hint}
	}
}
