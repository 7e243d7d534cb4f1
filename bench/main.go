// Command bench measures tunneld beside its peers, in one run on one machine: a
// far end, tunneld, HAProxy and socat as processes of their own on loopback, one
// after another over several rounds. It prints medians, and ratios, which are
// what counts: machines differ.
//
//	go run ./bench                     everything, as docs/benchmarks.md has it
//	go run ./bench -only bulk -rounds 3
package main

import (
	"flag"
	"fmt"
	"os"
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
}

func run() int {
	args := os.Args[1:]
	part := ""
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		part, args = args[0], args[1:]
	}
	switch part {
	case "far":
		return status(runFar())
	case "proxy":
		return status(runProxy(args))
	case "load":
		return status(runLoad(args))
	case "plugin":
		return servePlugin()
	}
	var s settings
	fs := flag.NewFlagSet("bench", flag.ExitOnError)
	fs.IntVar(&s.rounds, "rounds", 5, "rounds; medians are printed")
	fs.DurationVar(&s.length, "length", 2*time.Second, "length of one measurement")
	fs.StringVar(&s.only, "only", "", "measure these alone, comma-separated: bulk,rr,crr,idle")
	fs.StringVar(&s.rows, "rows", "", "measure these rows alone, comma-separated")
	fs.StringVar(&s.tunneld, "tunneld", "", "a tunneld program; default: built from this checkout")
	_ = fs.Parse(args) // it exits on an error
	if part != "measure" {
		return guard(args)
	}
	return status(orchestrate(guarded(), s))
}

func status(err error) int {
	if err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		return 1
	}
	return 0
}

// wants says whether a comma-separated list, where it is not empty, has name.
func wants(list, name string) bool {
	if list == "" {
		return true
	}
	for _, one := range strings.Split(list, ",") {
		if one == name {
			return true
		}
	}
	return false
}
