package config

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/tunneld/tunneld/core/diag"
	"github.com/tunneld/tunneld/core/internal/route"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// mayTake says whether a route may take connections of a listener. The source of a client
// is not known here, nor its user, nor the target that one asks for: a route that wants a
// certain one may be the one.
func mayTake(r Route, l Listener) bool {
	rule := r.Match
	rule.Sources = nil
	if l.asks() {
		rule.Users = nil
	}
	if l.Target.Host == "" {
		rule.Hosts, rule.Ports = nil, nil
	}
	_, matches := route.New([]route.Rule{rule}).Find(route.Connection{Listener: l.ID(), Source: netip.IPv4Unspecified(), Target: l.Target})
	return matches
}

// labels reports listeners whose target is a label, and which a route sends to
// upstreams of which each needs a port.
func (c *Config) labels(schemas map[string]PluginSchema) (diags diag.Diagnostics) {
	for _, l := range c.Listeners {
		if l.Target.Host == "" || l.Target.Port != 0 {
			continue
		}
		for _, r := range c.Routes {
			if !mayTake(r, l) {
				continue
			}
			if len(r.Upstreams) > 0 && !slices.ContainsFunc(r.Upstreams, func(id string) bool { return c.mayTakeLabels(id, schemas) }) {
				diags = append(diags, c.BlockDiagnostic("listener."+l.ID(), "target", "The target has no port",
					fmt.Sprintf("It is a label, and route %q leads to upstreams that need a port. Write host:port, or route it to an upstream that takes labels.", r.Name)))
				break
			}
			if len(r.Match.Sources) == 0 && len(r.Match.Users) == 0 {
				break // no later route gets it
			}
		}
	}
	return diags
}

// mayTakeLabels says whether an upstream takes labels, or whether that is not known.
func (c *Config) mayTakeLabels(id string, schemas map[string]PluginSchema) bool {
	i := slices.IndexFunc(c.Upstreams, func(u Upstream) bool { return u.ID() == id })
	if i < 0 {
		return true
	}
	if c.Upstreams[i].Type == DirectType {
		return false
	}
	return schemas[c.Upstreams[i].Type].Block.GetTargets() != pluginv1.Targets_TARGETS_PORT
}
