// Command bench measures tunneld beside its peers, in one run on one machine: a
// far end, tunneld, HAProxy and socat as processes of their own on loopback, one
// after another over several rounds. It prints medians, and ratios, which are
// what counts: machines differ.
//
//	go run ./bench                     everything, as in docs/benchmarks.md
//	go run ./bench -only bulk -rounds 3
//
// It also compares two builds of tunneld, measured in turns: programs, checkouts or
// git revisions.
//
//	go run ./bench compare main .
//
// And it measures how near tunneld comes to the bandwidths that it is told to keep.
//
//	go run ./bench limits
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

func main() {
	os.Exit(run())
}

// settings are the flags.
type settings struct {
	rounds  int
	length  time.Duration // of one measurement
	only    string
	rows    string
	tunneld string
	// Of compare.
	json    bool
	maxLoss float64 // in percent; 0: whatever is lost
}

// The commands that a user calls.
const (
	peersCommand   = ""
	compareCommand = "compare"
	limitsCommand  = "limits"
)

func run() int {
	args := os.Args[1:]
	command := peersCommand
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		command, args = args[0], args[1:]
	}
	switch command {
	case "far":
		return status(runFar())
	case "proxy":
		return status(runProxy(args))
	case "load":
		return status(runLoad(args))
	case "plugin":
		return servePlugin()
	case measureCommand:
		if len(args) > 0 {
			return measureGuarded(args)
		}
	case peersCommand, compareCommand, limitsCommand:
		parse(command, args) // it exits on an error
		return guard(append([]string{command}, args...))
	}
	return status(fmt.Errorf("unknown command %q: there are compare and limits; without a command, bench measures tunneld beside its peers", command))
}

// measureGuarded does what a command is about, in the process that guard starts.
func measureGuarded(args []string) int {
	command := args[0]
	s, builds := parse(command, args[1:])
	switch command {
	case compareCommand:
		return status(compare(guarded(), s, builds))
	case limitsCommand:
		return status(measureLimits(guarded(), s))
	}
	return status(besidePeers(guarded(), s))
}

// parse exits on an error.
func parse(command string, args []string) (s settings, builds []string) {
	fs := flag.NewFlagSet(strings.TrimSpace("bench "+command), flag.ExitOnError)
	rounds, length := 5, 2*time.Second
	if command == compareCommand {
		rounds, length = 12, time.Second
		fs.BoolVar(&s.json, "json", false, "print JSON, with the values of each round")
		fs.Float64Var(&s.maxLoss, "max-loss", 0, "exit with 3 if a value is certainly worse by more than this, in percent")
		fs.Usage = func() {
			fmt.Fprintf(fs.Output(), "Usage: bench compare [flags] OLD NEW\n\nOLD and NEW are programs, checkouts (folders) or git revisions of this repository.\n\n")
			fs.PrintDefaults()
		}
	} else {
		fs.StringVar(&s.tunneld, "tunneld", "", "a tunneld program; default: built from this checkout")
	}
	fs.IntVar(&s.rounds, "rounds", rounds, "rounds; medians are printed")
	fs.DurationVar(&s.length, "length", length, "length of one measurement")
	if command != limitsCommand {
		fs.StringVar(&s.only, "only", "", "measure only these, comma-separated: bulk,rr,crr,idle")
		fs.StringVar(&s.rows, "rows", "", "measure only these rows, comma-separated")
	}
	_ = fs.Parse(args) // it exits on an error
	builds = fs.Args()
	if command == compareCommand && len(builds) != 2 || command != compareCommand && len(builds) > 0 {
		fmt.Fprintf(fs.Output(), "bench: unexpected arguments %q\n", builds)
		fs.Usage()
		os.Exit(2)
	}
	return s, builds
}

func status(err error) int {
	if err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		if errors.Is(err, errLoss) {
			return 3
		}
		return 1
	}
	return 0
}

// wants says whether a comma-separated list, where it is not empty, has name.
func wants(list, name string) bool {
	return list == "" || slices.Contains(strings.Split(list, ","), name)
}
