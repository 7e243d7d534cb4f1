package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
)

// column is a load, and what it does to each row is measured.
type column struct {
	group string // of -only
	name  string
	unit  string // of the rate
	kind  string // of the load
	n     int
	scale float64 // from the load's rate to the unit
	p99   bool    // measures times as well
	// resume: each tunnel resumes a session of TLS, so that only rows with TLS are measured.
	resume bool
	// What a unit of the load costs in CPU time.
	cpuUnit  string
	cpuScale float64 // from seconds for a byte, round trip or tunnel
}

var columns = []column{
	bulkColumn("up", 1), bulkColumn("down", 1), bulkColumn("up", 4), bulkColumn("down", 4),
	{group: "rr", name: "round trips, 1 connection", unit: "/s", kind: "rr", n: 1, scale: 1, p99: true, cpuUnit: "us", cpuScale: 1e6},
	{group: "rr", name: "round trips, 32 connections", unit: "/s", kind: "rr", n: 32, scale: 1, p99: true, cpuUnit: "us", cpuScale: 1e6},
	{group: "crr", name: "new tunnels, 16 at once", unit: "/s", kind: "crr", n: 16, scale: 1, cpuUnit: "us", cpuScale: 1e6},
	{group: "crr", name: "new tunnels, sessions resumed, 16 at once", unit: "/s", kind: "crr", n: 16, scale: 1, resume: true, cpuUnit: "us", cpuScale: 1e6},
}

func bulkColumn(kind string, n int) column {
	streams := "1 stream"
	if n > 1 {
		streams = fmt.Sprintf("%d streams", n)
	}
	return column{group: "bulk", name: kind + ", " + streams, unit: "Gbit/s", kind: kind, n: n, scale: 8e-9, cpuUnit: "s/GB", cpuScale: 1e9}
}

// metric is a value that a column, or the idle tunnels, give.
type metric struct {
	name string // with its unit
	cost bool   // less is better
}

func (c column) rate() metric { return metric{name: c.name + " [" + c.unit + "]"} }
func (c column) p50() metric  { return metric{c.name + ", p50 [us]", true} }
func (c column) p99s() metric { return metric{c.name + ", p99 [us]", true} }
func (c column) cpu() metric  { return metric{c.name + ", CPU [" + c.cpuUnit + "]", true} }

// metrics are all that -only lets be measured of these rows, in the order of the tables.
func metrics(only string, rows ...string) (all []metric) {
	for _, c := range columns {
		if !wants(only, c.group) || c.resume && !slices.ContainsFunc(rows, speaksTLS) {
			continue
		}
		all = append(all, c.rate())
		if c.p99 {
			all = append(all, c.p50(), c.p99s())
		}
		all = append(all, c.cpu())
	}
	if wants(only, "idle") {
		all = append(all, idleBytes, idleDescriptors, pluginBytes, pluginDescriptors)
	}
	return all
}

// results are the values of each round, by metric and row.
type results map[string]map[string][]float64

func (r results) add(m metric, row string, v float64) {
	if r[m.name] == nil {
		r[m.name] = map[string][]float64{}
	}
	r[m.name][row] = append(r[m.name][row], v)
}

// withFarEnds calls do with a temporary folder and the far ends, each a process.
func withFarEnds(ctx context.Context, do func(dir string, far farEnds) error) (err error) {
	dir, err := os.MkdirTemp("", "tunneld-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	var far farEnds
	if far.tls, err = issueTLS(dir); err != nil {
		return err
	}
	services, err := startFar(ctx, &far, "far")
	if err != nil {
		return err
	}
	defer services.stop()
	proxy, err := startFar(ctx, &far, "proxy", far.Echo, far.Sink, far.Source)
	if err != nil {
		return err
	}
	defer proxy.stop()
	return do(dir, far)
}

// besidePeers measures tunneld and its peers and prints the tables.
func besidePeers(ctx context.Context, s settings) error {
	return withFarEnds(ctx, func(dir string, far farEnds) (err error) {
		if s.tunneld == "" {
			if s.tunneld, err = build(ctx, "", dir); err != nil {
				return err
			}
		}
		rows, err := startRows(ctx, s, far, dir)
		defer stopRows(rows)
		if err != nil {
			return err
		}
		got := results{}
		if wants(s.only, "idle") {
			// First of all: later there is memory of the other loads to be used again.
			for _, r := range rows {
				if err := measureIdle(ctx, s, r, got); err != nil {
					return err
				}
			}
		}
		for round := range s.rounds {
			fmt.Fprintf(os.Stderr, "round %d of %d\n", round+1, s.rounds)
			for _, c := range columns {
				if !wants(s.only, c.group) {
					continue
				}
				for _, r := range rows {
					if err := measureColumn(ctx, s, c, r, got); err != nil {
						return err
					}
				}
			}
		}
		return print(os.Stdout, rows, metrics(s.only, names(rows)...), got)
	})
}

func measureColumn(ctx context.Context, s settings, c column, r row, got results) (err error) {
	if c.resume && !speaksTLS(r.name) {
		return nil
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("%s, %s: %w", r.name, c.name, err)
		}
	}()
	var before, after usage
	if r.process != nil {
		if before, _, err = measure(r.process.cmd.Process.Pid); err != nil {
			return err
		}
	}
	var l loadResult
	args := r.loadArgs(c.kind, c.n, s)
	if c.resume {
		args = append(args, "-resume")
	}
	if err := self(ctx, &l, args...); err != nil {
		return err
	}
	if l.Failed > 0 || l.Total == 0 {
		return fmt.Errorf("%d tunnels failed (%s), and %d bytes, round trips or tunnels were done", l.Failed, l.Why, l.Total)
	}
	got.add(c.rate(), r.name, l.PerSecond*c.scale)
	if c.p99 {
		got.add(c.p50(), r.name, l.P50)
		got.add(c.p99s(), r.name, l.P99)
	}
	// socat's processes are gone with their connections, and their times with
	// them.
	if r.process != nil && r.name != "socat" {
		if after, _, err = measure(r.process.cmd.Process.Pid); err != nil {
			return err
		}
		got.add(c.cpu(), r.name, (after.cpu-before.cpu)/float64(l.Total)*c.cpuScale)
	}
	return nil
}

var (
	idleBytes         = metric{"idle tunnel, memory [B]", true}
	idleDescriptors   = metric{"idle tunnel, descriptors", true}
	pluginBytes       = metric{"idle tunnel, memory of the plugin [B]", true}
	pluginDescriptors = metric{"idle tunnel, descriptors of the plugin", true}
)

// The idle tunnels: so many to warm up, then some that are held, then more,
// which are measured.
const (
	idleWarm  = 5000
	idleHeld  = 4000
	idleExtra = 4000
)

func measureIdle(ctx context.Context, s settings, r row, got results) (err error) {
	if r.process == nil || r.name == "socat" {
		return nil // nothing in between, or a process each
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("%s, idle: %w", r.name, err)
		}
	}()
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	load, err := start(ctx, os.Stderr, exe, r.loadArgs("hold", 1, s)...)
	if err != nil {
		return err
	}
	defer load.stop()
	for _, n := range []int{idleWarm, -idleWarm, idleHeld} {
		if err := tell(load, n); err != nil {
			return err
		}
	}
	pid := r.process.cmd.Process.Pid
	_, before, err := measure(pid)
	if err != nil {
		return err
	}
	if err := tell(load, idleExtra); err != nil {
		return err
	}
	_, after, err := measure(pid)
	if err != nil {
		return err
	}
	for p := range after {
		bytes, descriptors := idleBytes, idleDescriptors
		if p != pid {
			bytes, descriptors = pluginBytes, pluginDescriptors
		}
		got.add(bytes, r.name, float64(after[p].rss-before[p].rss)/idleExtra)
		got.add(descriptors, r.name, float64(after[p].descriptors-before[p].descriptors)/idleExtra)
	}
	return nil
}

// tell gives a holding load its next number and waits until it is done.
func tell(load *process, n int) error {
	if _, err := fmt.Fprintln(load.stdin, n); err != nil {
		return err
	}
	if _, err := load.out.ReadString('\n'); err != nil {
		return fmt.Errorf("load: %w", err)
	}
	return nil
}
