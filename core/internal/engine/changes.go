package engine

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/tunneld/tunneld/core/internal/config"
)

// changes says what a reload has changed, one sentence each. Values are not
// shown: some are secret.
func changes(old, next *generation) []string {
	c := changeList{changed: func(id string) []string { return config.Changed(old.cfg, next.cfg, id) }}
	c.block("log")
	c.block("daemon")
	if slices.Contains(c.changed("daemon"), "run_dir") {
		c.add("daemon: run_dir takes effect at the next start, until then it stays as it was")
	}
	c.block("metrics")
	c.block("control")
	c.plugins(old, next)
	c.upstreams(old, next)
	c.listeners(old.cfg.Listeners, next.cfg.Listeners)
	c.routes(old.cfg.Routes, next.cfg.Routes)
	return c.lines
}

type changeList struct {
	lines []string
	// changed names what differs in a block that both configurations have.
	changed func(id string) []string
}

func (c *changeList) add(format string, args ...any) {
	c.lines = append(c.lines, fmt.Sprintf(format, args...))
}

func (c *changeList) block(name string) {
	if len(c.changed(name)) > 0 {
		c.add("%s: changed", name)
	}
}

func (c *changeList) plugins(old, next *generation) {
	for _, name := range slices.Sorted(maps.Keys(next.plugins)) {
		switch was := old.plugins[name]; {
		case was == nil:
			c.add("plugin %s: started", name)
		case was != next.plugins[name]:
			c.add("plugin %s: replaced by a new process; the old one takes no more dials and drains", name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(old.plugins)) {
		if next.plugins[name] == nil {
			c.add("plugin %s: no longer used; it drains and stops", name)
		}
	}
}

func (c *changeList) upstreams(old, next *generation) {
	before := map[string]config.Upstream{}
	for _, u := range old.cfg.Upstreams {
		before[u.ID()] = u
	}
	for _, u := range next.cfg.Upstreams {
		_, existed := before[u.ID()]
		switch {
		case !existed:
			c.add("upstream %s: added", u.ID())
		case len(c.changed("upstream."+u.ID())) > 0:
			c.add("upstream %s: changed", u.ID())
		}
		delete(before, u.ID())
	}
	for _, id := range slices.Sorted(maps.Keys(before)) {
		c.add("upstream %s: removed", id)
	}
}

func (c *changeList) listeners(old, next []config.Listener) {
	before := map[string]config.Listener{}
	for _, l := range old {
		before[l.ID()] = l
	}
	for _, l := range next {
		was, existed := before[l.ID()]
		delete(before, l.ID())
		if !existed {
			c.add("listener %s: added on %s", l.ID(), strings.Join(l.Addresses, ", "))
			continue
		}
		c.addresses(l.ID(), was.Addresses, l.Addresses)
		differing := slices.DeleteFunc(c.changed("listener."+l.ID()), func(name string) bool { return name == "address" || name == "addresses" })
		if len(differing) > 0 {
			c.add("listener %s: changed %s", l.ID(), strings.Join(differing, ", "))
		}
	}
	for _, id := range slices.Sorted(maps.Keys(before)) {
		c.add("listener %s: removed", id)
	}
}

// addresses says where a listener was and is. Their order does not matter.
func (c *changeList) addresses(id string, old, next []string) {
	less := func(all, by []string) string {
		return strings.Join(slices.DeleteFunc(slices.Clone(all), func(one string) bool { return slices.Contains(by, one) }), ", ")
	}
	switch gone, come := less(old, next), less(next, old); {
	case gone != "" && come != "":
		c.add("listener %s: moved from %s to %s", id, gone, come)
	case come != "":
		c.add("listener %s: also on %s", id, come)
	case gone != "":
		c.add("listener %s: no longer on %s", id, gone)
	}
}

func (c *changeList) routes(old, next []config.Route) {
	before := map[string]config.Route{}
	for _, r := range old {
		before[r.Name] = r
	}
	kept := map[string]bool{}
	var was, is []string // the names that both have, in order
	for _, r := range next {
		if _, existed := before[r.Name]; !existed {
			c.add("route %s: added", r.Name)
			continue
		}
		kept[r.Name] = true
		is = append(is, r.Name)
		if len(c.changed("route."+r.Name)) > 0 {
			c.add("route %s: changed", r.Name)
		}
	}
	for _, r := range old {
		if !kept[r.Name] {
			c.add("route %s: removed", r.Name)
			continue
		}
		was = append(was, r.Name)
	}
	if !slices.Equal(was, is) {
		c.add("routes: their order has changed")
	}
}
