// Command chaos runs the real daemon under load and disturbs it: reloads of every
// kind, good and bad, killed and hung plugins, plugins that are replaced, stops.
// Every byte of every tunnel is checked at both ends. It exits with 1 if anything
// was lost that docs/reliability.md promises to keep.
//
//	go run ./chaos            the whole of it
//	go run ./chaos -short     two minutes, for the continuous integration
//	go run ./chaos -soak 10m  churn without disturbance but reloads: nothing grows
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/tunneld/tunneld/plugins/sdk"
)

// settings are the flags.
type settings struct {
	rounds                       int // each ends with a stop
	reloads, kills, hangs, swaps int // in a round
	established                  int
	rate                         int // new connections a second
	pause                        time.Duration
	soak                         time.Duration
	seed                         uint64
	tunneld                      string
}

func main() {
	if len(os.Args) == 2 && os.Args[1] == "plugin" {
		os.Exit(sdk.Serve(relayPlugin()))
	}
	s := settings{rounds: 10, reloads: 10, kills: 5, hangs: 1, swaps: 1, established: 500, rate: 200, pause: 400 * time.Millisecond}
	short := flag.Bool("short", false, "the form of two minutes")
	flag.DurationVar(&s.soak, "soak", 0, "churn for this long instead")
	flag.Uint64Var(&s.seed, "seed", uint64(time.Now().UnixNano()), "the order of events and the bytes")
	flag.StringVar(&s.tunneld, "tunneld", "", "a tunneld program; default: built from this checkout")
	flag.IntVar(&s.rounds, "rounds", s.rounds, "how often everything is done")
	flag.Parse()
	if *short {
		s.rounds, s.reloads, s.kills, s.swaps, s.established, s.rate = 2, 12, 5, 2, 150, 60
	}
	// To die of a pipe that nobody reads would leave everything running. The
	// signal is not ignored, since what is started would inherit that.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, s); err != nil {
		fmt.Fprintf(os.Stderr, "chaos: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, s settings) error {
	fmt.Printf("seed %d, %d established connections, %d new ones a second\n", s.seed, s.established, s.rate)
	dir, err := os.MkdirTemp("", "tunneld-chaos-")
	if err != nil {
		return err
	}
	far, err := startFar()
	if err != nil {
		return err
	}
	defer far.close()
	d, err := newDaemon(ctx, s, dir, far)
	if err != nil {
		return err
	}
	defer d.kill()
	r := newReport()
	load := newLoad(s, d, far, r)
	if s.soak > 0 {
		err = soak(ctx, s, d, load, r)
	} else {
		err = disturb(ctx, s, d, load, r)
	}
	r.print()
	switch {
	case err != nil:
		return fmt.Errorf("%w; the daemon's log is %s", err, filepath.Join(dir, "tunneld.log"))
	case r.failed():
		return fmt.Errorf("a promise was broken; the daemon's log is %s", filepath.Join(dir, "tunneld.log"))
	}
	return os.RemoveAll(dir)
}

// disturb runs the rounds: load and events, then quiet, a look at what is left,
// and a stop.
func disturb(ctx context.Context, s settings, d *daemon, load *load, r *report) error {
	for round := range s.rounds {
		before, err := load.onNewDaemon(ctx)
		if err != nil {
			return err
		}
		err = events(ctx, s, round, d, load, r)
		if err == nil {
			err = load.quiet(ctx)
		}
		if err == nil {
			err = d.returned(ctx, before, r)
		}
		if err == nil {
			load.begin(ctx)
			err = stopUnderLoad(ctx, d, load, r)
		}
		load.end()
		if err != nil {
			return err
		}
		fmt.Printf("round %d of %d: %s\n", round+1, s.rounds, r.line())
	}
	return nil
}

// stopUnderLoad establishes tunnels anew, stops the daemon, sees that they go on
// and lets them end: all of them cleanly, and the daemon after them.
func stopUnderLoad(ctx context.Context, d *daemon, load *load, r *report) error {
	load.hold() // established ones alone
	if err := load.settled(ctx); err != nil {
		return err
	}
	if err := d.signal(syscall.SIGTERM); err != nil {
		return err
	}
	if err := load.exchanged(ctx); err != nil {
		return fmt.Errorf("while the daemon drains: %w", err)
	}
	r.event("stop", load.open())
	load.finish()
	if err := d.ended(15 * time.Second); err != nil {
		return err
	}
	if left := d.processes(); len(left) > 0 {
		return fmt.Errorf("processes outlive the daemon: %v", left)
	}
	return nil
}

var errLate = errors.New("it takes too long")

// until waits for ok, which is asked again and again.
func until(ctx context.Context, limit time.Duration, what string, ok func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		done, err := ok()
		if done && err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("%s: %w", what, errLate), err)
		}
	}
}
