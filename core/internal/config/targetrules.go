package config

import (
	"fmt"
	"slices"

	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/tunneld/tunneld/core/diag"
	"github.com/tunneld/tunneld/core/internal/listen"
	"github.com/tunneld/tunneld/internal/schema"
)

// The attributes that say where clients may go.
const (
	denyTargets  = "deny_targets"
	allowTargets = "allow_targets"
)

// ofTargets are these, which only listeners have whose clients name the target.
var ofTargets = []string{denyTargets, allowTargets}

func namesTarget(k listen.Kind) bool { return k.NamesTarget }

// targetRules reads where the clients of a listener may go.
func (p *parser) targetRules(l *Listener, v schema.Values, b *hclsyntax.Block) {
	l.AllowTargets, l.DenyTargets, _ = p.denyAllow(denyTargets, allowTargets, "allows nothing", v, b)
}

// ChecksTargets says whether clients of a listener name addresses that direct upstreams then
// dial.
func (c *Config) ChecksTargets(l Listener) bool { return l.NamesTarget() && len(c.directOf(l)) > 0 }

// directOf are the direct upstreams that routes may send a listener's connections to.
func (c *Config) directOf(l Listener) (upstreams []Upstream) {
	for _, u := range c.Upstreams {
		if u.Type == DirectType && slices.ContainsFunc(c.Routes, func(r Route) bool { return slices.Contains(r.Upstreams, u.ID()) && mayTake(r, l) }) {
			upstreams = append(upstreams, u)
		}
	}
	return upstreams
}

// resolver is the ID of a direct upstream whose proxy resolves the names that clients of a
// listener ask for; empty: there is none.
func (c *Config) resolver(l Listener) string {
	for _, u := range c.directOf(l) {
		if !u.Common.Via.IsZero() {
			return u.ID()
		}
	}
	return ""
}

// resolvedElsewhere warns of rules for targets that names get around, since a proxy resolves
// them.
func (p *parser) resolvedElsewhere() {
	for _, l := range p.cfg.Listeners {
		if len(l.AllowTargets)+len(l.DenyTargets) == 0 {
			continue
		}
		name := allowTargets
		if len(l.AllowTargets) == 0 {
			name = denyTargets
		}
		if u := p.cfg.resolver(l); u != "" {
			p.warnAt(locate(p.src.blocks["listener."+l.ID()], name), fmt.Sprintf("%q does not hold for names behind a proxy", name),
				fmt.Sprintf("The proxy of upstream.%s resolves them itself, so that only IP addresses that a client asks for are checked. Have the proxy refuse the others, or route this listener to an upstream without via.", u))
		}
	}
}

// uncheckedNames says, where that is so, that a proxy resolves the names that clients of a
// listener ask for; otherwise it is empty.
func (c *Config) uncheckedNames(l Listener) string {
	if u := c.resolver(l); u != "" {
		return fmt.Sprintf(" This holds for IP addresses alone where upstream.%s is used: its proxy resolves names, and has to refuse those that lead to it or its network.", u)
	}
	return ""
}

// TargetNotes name the listeners whose clients a direct upstream no longer connects to this
// machine, unless the block has a rule of its own: an empty list is one. The first version
// had no such rule.
func (c *Config) TargetNotes() (notes diag.Diagnostics) {
	for _, l := range c.Listeners {
		b := c.src.block("listener." + l.ID())
		if b == nil || !c.ChecksTargets(l) || isWritten(b, denyTargets) || isWritten(b, allowTargets) {
			continue
		}
		one := c.BlockDiagnostic("listener."+l.ID(), "", "Clients cannot reach this machine's own services by default",
			`Loopback, link-local and multicast addresses, this machine's own and those of cloud metadata services are refused. To allow one, write for example allow_targets = ["0.0.0.0/0", "::/0", "127.0.0.1/32"]; allow_targets = [] keeps the default.`+c.uncheckedNames(l))
		one.Warning, one.Note = true, true
		notes = append(notes, one)
	}
	return notes
}
