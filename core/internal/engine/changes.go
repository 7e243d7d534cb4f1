package engine

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/tunneld/tunneld/core/internal/config"
)

// changes says what a reload has changed, one sentence each. Values are not
// shown: some are secret.
func changes(old, next *generation) []string {
	var c changeList
	c.block("log", old.cfg.Log, next.cfg.Log)
	c.block("daemon", old.cfg.Daemon, next.cfg.Daemon)
	if was, is := old.cfg.Daemon.RunDir, next.cfg.Daemon.RunDir; was != is {
		c.add("daemon: run_dir takes effect at the next start, until then it stays as it was")
	}
	c.block("metrics", old.cfg.Metrics, next.cfg.Metrics)
	c.block("control", old.cfg.Control, next.cfg.Control)
	c.plugins(old, next)
	c.upstreams(old, next)
	c.listeners(old.cfg.Listeners, next.cfg.Listeners)
	c.routes(old.cfg.Routes, next.cfg.Routes)
	return c
}

type changeList []string

func (c *changeList) add(format string, args ...any) { *c = append(*c, fmt.Sprintf(format, args...)) }

func (c *changeList) block(name string, was, is any) {
	if !reflect.DeepEqual(was, is) {
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
		was, existed := before[u.ID()]
		switch {
		case !existed:
			c.add("upstream %s: added", u.ID())
		case was.Hash != u.Hash || was.Socket != u.Socket || !reflect.DeepEqual(was.Common, u.Common):
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
		if !slices.Equal(was.Addresses, l.Addresses) {
			c.add("listener %s: moved from %s to %s", l.ID(), strings.Join(was.Addresses, ", "), strings.Join(l.Addresses, ", "))
		}
		if differing := listenerChanges(was, l); len(differing) > 0 {
			c.add("listener %s: changed %s", l.ID(), strings.Join(differing, ", "))
		}
	}
	for _, id := range slices.Sorted(maps.Keys(before)) {
		c.add("listener %s: removed", id)
	}
}

// listenerChanges names what differs, but for the address.
func listenerChanges(was, is config.Listener) []string {
	var names []string
	for _, part := range []struct {
		name    string
		differs bool
	}{
		{"target", was.Target != is.Target},
		{"limits", was.Limits != is.Limits},
		{"timeouts", was.Timeout != is.Timeout},
		{"tcp", was.Socket != is.Socket || was.Backlog != is.Backlog},
		{"open", was.Open != is.Open},
	} {
		if part.differs {
			names = append(names, part.name)
		}
	}
	return names
}

func (c *changeList) routes(old, next []config.Route) {
	before := map[string]config.Route{}
	for _, r := range old {
		before[r.Name] = r
	}
	kept := map[string]bool{}
	var was, is []string // the names that both have, in order
	for _, r := range next {
		old, existed := before[r.Name]
		if !existed {
			c.add("route %s: added", r.Name)
			continue
		}
		kept[r.Name] = true
		is = append(is, r.Name)
		if !reflect.DeepEqual(old, r) {
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
