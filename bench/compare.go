package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// comparison is two builds of tunneld, measured in turns.
type comparison struct {
	Old    buildOf `json:"old"`
	New    buildOf `json:"new"`
	CPUs   int     `json:"cpus"`
	Rounds int     `json:"rounds"`
	// Seconds is the length of one measurement.
	Seconds float64 `json:"seconds"`
	Lines   []line  `json:"lines"`

	maxLoss float64
}

// errLoss says that a loss greater than -max-loss was shown.
var errLoss = errors.New("the new build has lost more than -max-loss allows")

// compare measures two builds and says where they differ.
func compare(ctx context.Context, s settings, names []string) error {
	if err := s.enough(); err != nil {
		return err
	}
	return withFarEnds(ctx, func(dir string, far farEnds) error {
		var builds [2]buildOf
		for i, name := range names {
			sub := filepath.Join(dir, []string{"old", "new"}[i])
			err := os.Mkdir(sub, 0o700)
			if err == nil {
				builds[i], err = findBuild(ctx, name, sub)
			}
			if err != nil {
				return err
			}
		}
		got := [2]results{{}, {}}
		for round := range s.rounds {
			fmt.Fprintf(os.Stderr, "round %d of %d\n", round+1, s.rounds)
			if err := s.compareRound(ctx, builds, round, got, far, filepath.Join(dir, fmt.Sprint(round))); err != nil {
				return err
			}
		}
		c := comparison{
			Old: builds[0], New: builds[1], CPUs: runtime.NumCPU(), Rounds: s.rounds, Seconds: s.length.Seconds(),
			Lines: lines(metrics(s.only, s.rowNames()...), s.rowNames(), got), maxLoss: s.maxLoss,
		}
		return c.report(os.Stdout, s.json)
	})
}

// enough checks the flags before time is spent on them.
func (s settings) enough() error {
	n := 0
	for _, row := range s.rowNames() {
		n += len(metrics(s.only, row))
	}
	if n == 0 {
		return errors.New("-only and -rows leave nothing to measure")
	}
	if least := fewest(missAll / float64(n)); s.maxLoss > 0 && s.rounds < least {
		return fmt.Errorf("-max-loss: for %d values it takes %d rounds at least to tell a loss from chance: set -rounds, or measure less (-only, -rows)", n, least)
	}
	return nil
}

// rowNames are the rows that are wanted, of those that tunneld is in. The one with TLS has
// to be asked for: an older build cannot have it.
func (s settings) rowNames() (names []string) {
	for _, name := range []string{"tunneld", "relay", "sapsocks", "tunneld-tls"} {
		if wants(s.rows, name) && (s.rows != "" || !speaksTLS(name)) {
			names = append(names, name)
		}
	}
	return names
}

// compareRound starts both builds anew, so that neither has luck with where its memory
// lies for all rounds, and measures them in turns.
func (s settings) compareRound(ctx context.Context, builds [2]buildOf, round int, got [2]results, far farEnds, dir string) error {
	var rows [2][]row
	defer func() {
		stopRows(rows[0])
		stopRows(rows[1])
	}()
	for i := range rows {
		one := s
		one.tunneld, one.rows = builds[i].tunneld, strings.Join(s.rowNames(), ",")
		var err error
		if rows[i], err = startRows(ctx, one, far, filepath.Join(dir, fmt.Sprint(i))); err != nil {
			return fmt.Errorf("%s: %w", builds[i].Name, err)
		}
	}
	inTurns := func(do func(r row, got results) error) error {
		for j := range rows[0] {
			for _, i := range turns(round) {
				if err := do(rows[i][j], got[i]); err != nil {
					return fmt.Errorf("%s: %w", builds[i].Name, err)
				}
			}
		}
		return nil
	}
	if wants(s.only, "idle") {
		if err := inTurns(func(r row, got results) error { return measureIdle(ctx, s, r, got) }); err != nil {
			return err
		}
	}
	for _, c := range columns {
		if !wants(s.only, c.group) {
			continue
		}
		if err := inTurns(func(r row, got results) error { return measureColumn(ctx, s, c, r, got) }); err != nil {
			return err
		}
	}
	return nil
}

// turns says which build goes first, so that a drift affects both alike.
func turns(round int) [2]int { return [2]int{round % 2, 1 - round%2} }
