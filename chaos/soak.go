package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// soak churns and reloads for the time given, and compares what the daemon holds
// in the first third of it, after a time to warm up, with the last.
func soak(ctx context.Context, s settings, d *daemon, l *load, r *report) error {
	before, err := l.onNewDaemon(ctx)
	if err != nil {
		return err
	}
	good, random := goodChanges(), rand.New(rand.NewPCG(s.seed, 0))
	var samples []usage
	began := time.Now()
	reload, sample := time.NewTicker(3*time.Second), time.NewTicker(max(s.soak/120, time.Second))
	defer reload.Stop()
	defer sample.Stop()
	for time.Since(began) < s.soak {
		select {
		case <-reload.C:
			c := good[random.IntN(len(good))]
			if err := d.goodReload(ctx, c, r); err != nil {
				return err
			}
			r.event("reload: "+c.name, l.open())
		case <-sample.C:
			if time.Since(began) < s.soak/6 {
				continue
			}
			u, err := d.usage(ctx)
			if err != nil {
				return err
			}
			samples = append(samples, u)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if err := l.quiet(ctx); err != nil {
		return err
	}
	if err := d.returned(ctx, before, r); err != nil {
		return err
	}
	return grown(samples, r)
}

// grown fails where the median of the last third is above that of the first by
// more than a tenth and a little.
func grown(samples []usage, r *report) error {
	if len(samples) < 6 {
		return fmt.Errorf("only %d samples: soak for longer", len(samples))
	}
	first, last := samples[:len(samples)/3], samples[len(samples)-len(samples)/3:]
	for _, m := range []struct {
		what  string
		value func(usage) int64
		slack int64
	}{
		{"descriptors", func(u usage) int64 { return int64(u.descriptors) }, 20},
		{"goroutines", func(u usage) int64 { return int64(u.goroutines) }, 20},
		{"processes", func(u usage) int64 { return int64(u.processes) }, 0},
		{"KiB resident", func(u usage) int64 { return u.memory >> 10 }, 8 << 10},
	} {
		a, b := median(first, m.value), median(last, m.value)
		fmt.Printf("%s: %d in the first third, %d in the last\n", m.what, a, b)
		if b > a+a/10+m.slack {
			r.breach("%s grow: from %d to %d", m.what, a, b)
		}
	}
	return nil
}

func median(samples []usage, value func(usage) int64) int64 {
	var all []int64
	for _, u := range samples {
		all = append(all, value(u))
	}
	slices.Sort(all)
	return all[len(all)/2]
}
