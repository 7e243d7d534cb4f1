package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
)

// column is one thing that is measured of each row.
type column struct {
	group string // of -only
	name  string
	unit  string
	kind  string // of the load
	n     int
	scale float64
	p99   bool // measures times as well
	cpu   bool // measures CPU seconds per GB as well
}

var columns = []column{
	{group: "bulk", name: "up, 1 stream", unit: "Gbit/s", kind: "up", n: 1, scale: 8e-9},
	{group: "bulk", name: "down, 1 stream", unit: "Gbit/s", kind: "down", n: 1, scale: 8e-9},
	{group: "bulk", name: "up, 4 streams", unit: "Gbit/s", kind: "up", n: 4, scale: 8e-9, cpu: true},
	{group: "bulk", name: "down, 4 streams", unit: "Gbit/s", kind: "down", n: 4, scale: 8e-9, cpu: true},
	{group: "rr", name: "round trips, 1 connection", unit: "/s", kind: "rr", n: 1, scale: 1, p99: true},
	{group: "rr", name: "round trips, 32 connections", unit: "/s", kind: "rr", n: 32, scale: 1, p99: true},
	{group: "crr", name: "new tunnels, 16 at once", unit: "/s", kind: "crr", n: 16, scale: 1},
}

// results are the values of each round, by column and row.
type results map[string]map[string][]float64

func (r results) add(column, row string, v float64) {
	if r[column] == nil {
		r[column] = map[string][]float64{}
	}
	r[column][row] = append(r[column][row], v)
}

func orchestrate(ctx context.Context, s settings) (err error) {
	dir, err := os.MkdirTemp("", "tunneld-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if s.tunneld == "" {
		if s.tunneld, err = build(ctx, dir); err != nil {
			return err
		}
	}
	var far farEnds
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
	rows, err := startRows(ctx, s, far, dir)
	defer func() {
		for _, r := range rows {
			if r.process != nil {
				r.process.stop()
			}
		}
	}()
	if err != nil {
		return err
	}
	got, order := results{}, []string{}
	if wants(s.only, "idle") {
		// First of all: later there is memory of the other loads to be used again.
		for _, r := range rows {
			if err := measureIdle(ctx, r, got); err != nil {
				return fmt.Errorf("%s, idle: %w", r.name, err)
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
					return fmt.Errorf("%s, %s: %w", r.name, c.name, err)
				}
			}
		}
	}
	for _, c := range columns {
		order = append(order, c.name+" ["+c.unit+"]", c.name+", p50 [us]", c.name+", p99 [us]", c.name+", CPU [s/GB]")
	}
	order = append(order, idleBytes, idleDescriptors, pluginBytes, pluginDescriptors)
	return print(os.Stdout, rows, order, got)
}

func measureColumn(ctx context.Context, s settings, c column, r row, got results) error {
	var before usage
	var err error
	if c.cpu && r.process != nil {
		if before, _, err = measure(r.process.cmd.Process.Pid); err != nil {
			return err
		}
	}
	var l loadResult
	if err := self(ctx, &l, r.loadArgs(c.kind, c.n, s)...); err != nil {
		return err
	}
	if l.Failed > 0 {
		return fmt.Errorf("%d tunnels failed", l.Failed)
	}
	got.add(c.name+" ["+c.unit+"]", r.name, l.PerSecond*c.scale)
	if c.p99 {
		got.add(c.name+", p50 [us]", r.name, l.P50)
		got.add(c.name+", p99 [us]", r.name, l.P99)
	}
	// socat's processes are gone with their connections, and their times with
	// them.
	if c.cpu && r.process != nil && r.name != "socat" {
		after, _, err := measure(r.process.cmd.Process.Pid)
		if err != nil {
			return err
		}
		// The warm-up, a fifth of the length, moves bytes as well.
		gigabytes := l.PerSecond * s.length.Seconds() * 1.2 / 1e9
		got.add(c.name+", CPU [s/GB]", r.name, (after.cpu-before.cpu)/gigabytes)
	}
	return nil
}

const (
	idleBytes         = "idle tunnel, memory [B]"
	idleDescriptors   = "idle tunnel, descriptors"
	pluginBytes       = "idle tunnel, memory of the plugin [B]"
	pluginDescriptors = "idle tunnel, descriptors of the plugin"
)

// The idle tunnels: so many to warm up, then some that are held, then more,
// which are measured.
const (
	idleWarm  = 5000
	idleHeld  = 4000
	idleExtra = 4000
)

func measureIdle(ctx context.Context, r row, got results) error {
	if r.process == nil || r.name == "socat" {
		return nil // nothing in between, or a process each
	}
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	load, err := start(ctx, os.Stderr, exe, "load", "-kind", "hold", "-address", r.echo)
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

// print writes the medians, and each beside HAProxy's as a ratio.
func print(out io.Writer, rows []row, order []string, got results) error {
	b := bufio.NewWriter(out)
	fmt.Fprintf(b, "%d CPUs, %s, %s/%s; medians\n\n", runtime.NumCPU(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
	for _, table := range []struct {
		title string
		cell  func(column, row string) (float64, bool)
		form  string
	}{
		{"medians", func(c, r string) (float64, bool) { return median(got[c][r]) }, "%.4g"},
		{"ratio to HAProxy", func(c, r string) (float64, bool) { return ratio(got[c], r, "haproxy") }, "%.2f"},
		{"ratio to no proxy", func(c, r string) (float64, bool) { return ratio(got[c], r, "none") }, "%.2f"},
		{"ratio to tunneld direct", func(c, r string) (float64, bool) { return ratio(got[c], r, "tunneld") }, "%.2f"},
		{"ratio to the far end asked directly", func(c, r string) (float64, bool) { return ratio(got[c], r, "asked") }, "%.2f"},
	} {
		w := tabwriter.NewWriter(b, 0, 0, 1, ' ', 0)
		names := []string{}
		for _, r := range rows {
			names = append(names, r.name)
		}
		fmt.Fprintf(w, "| %s\t| %s\t|\n|---\t%s|\n", table.title, strings.Join(names, "\t| "), strings.Repeat("|---\t", len(rows)))
		for _, c := range order {
			if got[c] == nil {
				continue
			}
			line, empty := "| "+c+"\t", true
			for _, r := range rows {
				text := ""
				if v, ok := table.cell(c, r.name); ok {
					text, empty = fmt.Sprintf(table.form, v), false
				}
				line += "| " + text + "\t"
			}
			if !empty {
				fmt.Fprintln(w, line+"|")
			}
		}
		if err := w.Flush(); err != nil {
			return err
		}
		fmt.Fprintln(b)
	}
	return b.Flush()
}

// ratio is the median of the ratios round by round: the machine's speed drifts
// from one to the next.
func ratio(byRow map[string][]float64, row, to string) (float64, bool) {
	var all []float64
	for i, v := range byRow[row] {
		if i < len(byRow[to]) && byRow[to][i] != 0 {
			all = append(all, v/byRow[to][i])
		}
	}
	return median(all)
}

func median(v []float64) (float64, bool) {
	if len(v) == 0 {
		return 0, false
	}
	s := slices.Sorted(slices.Values(v))
	if len(s)%2 == 1 {
		return s[len(s)/2], true
	}
	return (s[len(s)/2-1] + s[len(s)/2]) / 2, true
}
