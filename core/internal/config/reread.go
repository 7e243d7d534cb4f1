package config

import (
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/tunneld/tunneld/core/diag"
	"github.com/tunneld/tunneld/internal/userfile"
)

// Files returns the configuration's own files as Parse found them, by path. One that
// could not be read has the zero Sum.
func (c *Config) Files() map[string]userfile.Sum { return c.src.sums }

// ValueFiles returns what file() has read in the bodies of upstreams and listeners: by
// the block's ID ("upstream.soht.legacy"), files by path. One that could not be read
// has the zero Sum.
func (c *Config) ValueFiles() map[string]map[string]userfile.Sum {
	all := map[string]map[string]userfile.Sum{}
	for id, b := range c.src.blocks {
		if b.Type != "upstream" && b.Type != "listener" {
			continue
		}
		read := map[string]userfile.Sum{}
		eachExpression(b.Body, func(expr hclsyntax.Expression) { maps.Copy(read, c.src.evals[expr].read) })
		if len(read) > 0 {
			all[id] = read
		}
	}
	return all
}

// Reread returns a copy of the configuration as Undecoded does, but for the bodies of
// these upstreams and listeners: they have been evaluated again, with what files hold
// now. Nothing else is read. The diagnostics are of these bodies; with an error among
// them the copy must not be run.
func (c *Config) Reread(blockIDs []string) (*Config, diag.Diagnostics) {
	next := c.Undecoded()
	next.Listeners = slices.Clone(next.Listeners)
	src := next.src
	src.shown = [3]int{}
	src.evals = maps.Clone(src.evals)
	src.funcs = src.evalContext() // whose file() notes in src what it reads
	var bodies []*hclsyntax.Body
	for _, id := range blockIDs {
		bodies = append(bodies, src.blocks[id].Body)
	}
	shared := newParser(&Config{src: src})
	shared.rereadLocals(bodies)
	diags := shared.diags
	for _, id := range blockIDs {
		b := src.blocks[id]
		eachExpression(b.Body, func(expr hclsyntax.Expression) { delete(src.evals, expr) })
		p := newParser(&Config{src: src})
		p.decode(b)
		diags = append(diags, p.diags...)
		_, id, _ = strings.Cut(id, ".")
		put(next.Upstreams, p.cfg.Upstreams, id, Upstream.ID)
		put(next.Listeners, p.cfg.Listeners, id, Listener.ID)
	}
	return next, diags
}

// put replaces the one with this ID by the one in by, if there is one.
func put[T any](in, by []T, id string, idOf func(T) string) {
	if len(by) == 1 {
		in[slices.IndexFunc(in, func(t T) bool { return idOf(t) == id })] = by[0]
	}
}

func eachExpression(body *hclsyntax.Body, f func(hclsyntax.Expression)) {
	for _, a := range body.Attributes {
		f(a.Expr)
	}
	for _, b := range body.Blocks {
		eachExpression(b.Body, f)
	}
}
