package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"syscall"
	"time"

	"github.com/tunneld/tunneld/core"
	"github.com/tunneld/tunneld/core/status"
)

// disturbance is one event under load.
type disturbance struct {
	kind string
	do   func(ctx context.Context) error
}

// events makes the disturbances of one round, in an order of the seed.
func events(ctx context.Context, s settings, round int, d *daemon, l *load, r *report) error {
	random := rand.New(rand.NewPCG(s.seed, uint64(round)))
	var all []disturbance
	good, bad := goodChanges(), badChanges(d)
	g, b := round*s.reloads*2/3, round*s.reloads/3 // on from the last round
	for i := range s.reloads {
		if i%3 == 2 {
			c := bad[b%len(bad)]
			b++
			all = append(all, disturbance{"reload, refused: " + c.name, func(ctx context.Context) error { return d.refusedReload(ctx, c, r) }})
			continue
		}
		c := good[g%len(good)]
		g++
		all = append(all, disturbance{"reload: " + c.name, func(ctx context.Context) error { return d.goodReload(ctx, c, r) }})
	}
	for i := range s.kills {
		name, path := "sapsocks", "sapsocks"
		if i%2 == 0 {
			name, path = relayName, "relay"
		}
		all = append(all, disturbance{"kill of the plugin " + name, func(ctx context.Context) error {
			return d.replaced(ctx, name, l.leave(path), syscall.SIGKILL)
		}})
	}
	for range s.hangs {
		all = append(all, disturbance{"hang of the plugin " + relayName, func(ctx context.Context) error {
			return d.replaced(ctx, relayName, l.leave("relay"), syscall.SIGSTOP)
		}})
	}
	for range s.swaps {
		all = append(all, disturbance{"swap of the plugin " + relayName, func(ctx context.Context) error { return d.swap(ctx, l.leave("relay"), r) }})
	}
	random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	for _, e := range all {
		open := l.open()
		if err := e.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", e.kind, err)
		}
		r.event(e.kind, open)
		// The load sees each state for a while.
		if err := l.exchanged(ctx); err != nil {
			return fmt.Errorf("after %s: %w", e.kind, err)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

// change is a change of the configuration.
type change struct {
	name string
	do   func(*configuration)
}

func goodChanges() []change {
	return []change{
		{"nothing", func(*configuration) {}},
		{"limits", func(c *configuration) { c.limit = 5000 + c.limit%2 + 1 }},
		{"a listener more", func(c *configuration) { c.spare = mustPort() }},
		{"routes", func(c *configuration) { c.extra = (c.extra + 3) % 7 }},
		{"an upstream of the relay", func(c *configuration) { c.note++ }},
		{"a listener moves", func(c *configuration) { c.spare = mustPort() }},
		{"timeouts", func(c *configuration) { c.idle = 3600 + (c.idle+1)%10 }},
		{"an upstream of sapsocks", func(c *configuration) { c.connect = 10 + (c.connect+1)%10 }},
		{"a listener less", func(c *configuration) { c.spare = 0 }},
		{"the log", func(c *configuration) {
			if c.level == "info" {
				c.level = "debug"
			} else {
				c.level = "info"
			}
		}},
	}
}

func badChanges(d *daemon) []change {
	return []change{
		{"syntax", func(c *configuration) { c.broken = "\nlistener {" }},
		{"a reference", func(c *configuration) { c.broken = "\nroute \"bad\" {\n upstreams = [upstream.direct.nowhere]\n}\n" }},
		{"an attribute of a plugin", func(c *configuration) { c.broken = "\nupstream \"sapsocks\" \"bad\" { nonsense = 1 }\n" }},
		{"no such plugin", func(c *configuration) { c.broken = "\nupstream \"nosuch\" \"bad\" {}\n" }},
		{"an address that is taken", func(c *configuration) {
			_, port, _ := net.SplitHostPort(d.far.ln.Addr().String())
			c.spare, _ = strconv.Atoi(port)
		}},
	}
}

func mustPort() int {
	address, err := free.Address()
	if err != nil {
		return 0
	}
	_, port, _ := net.SplitHostPort(address)
	n, _ := strconv.Atoi(port)
	return n
}

func (d *daemon) reload(ctx context.Context) (status.Reload, error) {
	if err := d.write(); err != nil {
		return status.Reload{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return core.AskReload(ctx, d.control)
}

func (d *daemon) goodReload(ctx context.Context, c change, r *report) error {
	c.do(&d.conf)
	out, err := d.reload(ctx)
	if err != nil {
		return err
	}
	if out.Error != "" {
		r.breach("the reload (%s) failed: %s\n%s", c.name, out.Error, out.Diagnostics)
	}
	return nil
}

// refusedReload changes nothing, in the daemon or in a plugin.
func (d *daemon) refusedReload(ctx context.Context, c change, r *report) error {
	was := d.conf
	c.do(&d.conf)
	before, err := d.status(ctx)
	if err != nil {
		return err
	}
	out, err := d.reload(ctx)
	d.conf = was
	if err != nil {
		return err
	}
	after, err := d.status(ctx)
	if err != nil {
		return err
	}
	if out.Error == "" || after.Generation != before.Generation {
		r.breach("a reload with %s wrong succeeded: generation %d, %d before", c.name, after.Generation, before.Generation)
	}
	return d.write()
}

// replaced signals a plugin's process and waits for the next one.
func (d *daemon) replaced(ctx context.Context, name string, back func(), sig syscall.Signal) error {
	defer back()
	var old int
	if err := until(ctx, time.Minute, "a running plugin "+name, func() (ok bool, err error) {
		old, err = d.plugin(ctx, name)
		return old != 0, err
	}); err != nil {
		return err
	}
	if err := syscall.Kill(old, sig); err != nil {
		return err
	}
	return until(ctx, time.Minute, "the restart of "+name, func() (bool, error) {
		now, err := d.plugin(ctx, name)
		return now != 0 && now != old, err
	})
}

// swap changes the plugin's block: a new process takes the dials, and the old one
// goes once it has drained or the time for that is over.
func (d *daemon) swap(ctx context.Context, back func(), r *report) error {
	defer back()
	old, err := d.plugin(ctx, relayName)
	if err != nil {
		return err
	}
	if err := d.goodReload(ctx, change{"the plugin's block", func(c *configuration) { c.env++ }}, r); err != nil {
		return err
	}
	return until(ctx, patience, "the end of the old process", func() (bool, error) {
		s, err := d.status(ctx)
		if err != nil {
			return false, err
		}
		for _, p := range s.Plugins {
			if p.Retired || p.PID == old && old != 0 {
				return false, nil
			}
		}
		return true, nil
	})
}
