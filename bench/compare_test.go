package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// around returns ten values, a few per cent around v.
func around(v float64) []float64 {
	out := make([]float64, 10)
	for i := range out {
		out[i] = v * (1 + 0.01*float64((i*3)%10-5))
	}
	return out
}

func one(cost bool, before, after []float64) []line {
	got := [2]results{{}, {}}
	m := metric{"a value", cost}
	for i, values := range [2][]float64{before, after} {
		for _, v := range values {
			got[i].add(m, "tunneld", v)
		}
	}
	return lines([]metric{m}, []string{"tunneld"}, got)
}

// TestVerdicts has one value change by more and by less than it varies.
func TestVerdicts(t *testing.T) {
	steady := slices.Repeat([]float64{100}, 10)
	for _, c := range []struct {
		name          string
		cost          bool
		before, after []float64
		maxLoss       float64
		verdict       string
		shown, open   bool
	}{
		{"a rate that falls", false, steady, around(80), 10, "worse", true, false},
		{"a rate that falls, but not so far", false, steady, around(80), 30, "worse", false, false},
		{"a rate that falls, and maybe so far", false, steady, around(80), 20, "worse", false, true},
		{"a rate that rises", false, steady, around(120), 1, "better", false, false},
		{"a cost that rises", true, steady, around(120), 10, "worse", true, false},
		{"a cost that falls", true, steady, around(80), 1, "better", false, false},
		{"less than the spread", false, steady, around(99), 10, "~", false, false},
		{"less than the spread, which may hide a loss", true, steady, around(101), 2, "~", false, true},
		{"nothing", true, steady, steady, 0.1, "~", false, false},
		{"too few rounds", false, []float64{1, 1, 1}, []float64{2, 2, 2}, 10, "?", false, false},
		{"no ratio", true, []float64{-1, 1, 1, 1, 1, 1}, []float64{1, 1, 1, 1, 1, 1}, 10, "", false, false},
		{"nothing to nothing", true, make([]float64, 10), make([]float64, 10), 10, "~", false, false},
		{"a cost out of nothing", true, make([]float64, 10), steady, 10, "worse", true, false},
		{"a round without a value", false, append([]float64{0}, steady[1:]...), steady, 10, "~", false, false},
		{"a rate that is gone", false, steady, make([]float64, 10), 10, "worse", true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			all := comparison{Lines: one(c.cost, c.before, c.after), maxLoss: c.maxLoss}
			if got := all.Lines[0].verdict(); got != c.verdict {
				t.Errorf("%q, want %q", got, c.verdict)
			}
			shown, open := all.losses()
			if (len(shown) > 0) != c.shown || (len(open) > 0) != c.open {
				t.Errorf("shown: %q, open: %q", shown, open)
			}
			var out bytes.Buffer
			if err := all.report(&out, false); errors.Is(err, errLoss) != c.shown {
				t.Errorf("%v", err)
			}
			if err := all.report(io.Discard, true); err != nil && !errors.Is(err, errLoss) {
				t.Errorf("as JSON: %v", err)
			}
			if strings.Contains(out.String(), "Not decided") != c.open {
				t.Errorf("%s", out.String())
			}
		})
	}
}

// TestOneLossOfManyValues: what is beyond an interval of 95 % once is expected of many
// values, and does not fail.
func TestOneLossOfManyValues(t *testing.T) {
	steady := slices.Repeat([]float64{100}, 10)
	nine := append(slices.Repeat([]float64{80}, 9), 101)
	alone := comparison{Lines: one(false, steady, nine), maxLoss: 10}
	if shown, _ := alone.losses(); len(shown) != 1 {
		t.Errorf("alone: %q", shown)
	}
	many := alone
	many.Lines = slices.Repeat(alone.Lines, 20)
	if shown, open := many.losses(); len(shown) != 0 || len(open) != 20 {
		t.Errorf("of twenty: shown %q, open %q", shown, open)
	}
}

// TestExitStatus tells a loss from what went wrong.
func TestExitStatus(t *testing.T) {
	loss := comparison{Lines: one(false, around(100), around(50)), maxLoss: 10}
	for want, err := range map[int]error{0: nil, 1: errors.New("no such revision"), 3: loss.report(io.Discard, true)} {
		if got := status(err); got != want {
			t.Errorf("%v: exit status %d, want %d", err, got, want)
		}
	}
}

func TestBuildsTakeTurns(t *testing.T) {
	if turns(0) != [2]int{0, 1} || turns(1) != [2]int{1, 0} || turns(2) != turns(0) {
		t.Errorf("%v, %v, %v", turns(0), turns(1), turns(2))
	}
}

func TestTooFewRoundsForMaxLoss(t *testing.T) {
	s := settings{only: "rr", rows: "tunneld", rounds: 7, maxLoss: 5}
	if err := s.enough(); err == nil || !strings.Contains(err.Error(), "takes 8 rounds") {
		t.Errorf("%v", err)
	}
	s.rounds = 8
	if err := s.enough(); err != nil {
		t.Error(err)
	}
	if err := (settings{rows: "haproxy"}).enough(); err == nil {
		t.Error("a row without tunneld was accepted")
	}
}

// fakeTunneld is a program that forwards as a configuration of bench says.
func fakeTunneld(t *testing.T, dir, name string) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, fmt.Appendf(nil, "#!/bin/sh\nexec %s %s \"$@\"\n", exe, fakePart), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

const fakePart = "fake"

var pairs = regexp.MustCompile(`address = "(.*)"\n target = "(.*)"`)

// forwardAsTold is the fake program: "run -c FILE".
func forwardAsTold(args []string) int {
	text, err := os.ReadFile(args[2])
	if err != nil {
		return status(err)
	}
	for _, m := range pairs.FindAllStringSubmatch(string(text), -1) {
		ln, err := net.Listen("tcp", m[1])
		if err != nil {
			return status(err)
		}
		go func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				go forward(c, m[2])
			}
		}()
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	<-stop
	return 0
}

func forward(c net.Conn, target string) {
	defer c.Close()
	far, err := net.Dial("tcp", target)
	if err != nil {
		return
	}
	defer far.Close()
	go func() {
		_, _ = io.Copy(far, c)
		_ = far.Close() // ends the other direction
	}()
	_, _ = io.Copy(c, far)
}

// TestCompare runs all of it with two programs.
func TestCompare(t *testing.T) {
	programs := t.TempDir()
	before, after := fakeTunneld(t, programs, "before"), fakeTunneld(t, programs, "after")
	out, err := os.Create(filepath.Join(programs, "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	dir := t.TempDir()
	cmd, errs := bench(t, dir, out, "compare", "-json", "-only", "crr", "-rows", "tunneld", "-rounds", "2", "-length", "50ms", before, after)
	if said := leavesNothing(t, dir, cmd, errs); cmd.ProcessState.ExitCode() != 0 {
		t.Fatalf("%v: %s", cmd.ProcessState, said)
	}
	var c comparison
	if text, err := os.ReadFile(out.Name()); err != nil || json.Unmarshal(text, &c) != nil {
		t.Fatalf("%s, %v", text, err)
	}
	if c.Old.Name != before || c.New.Name != after || c.Rounds != 2 || len(c.Lines) != 2 {
		t.Fatalf("%+v", c)
	}
	for _, l := range c.Lines {
		if l.Row != "tunneld" || len(l.Old) != 2 || len(l.New) != 2 || l.Interval != nil {
			t.Errorf("%+v", l)
		}
	}
	for _, want := range []string{"old: " + before, "new: " + after, "| new tunnels, 16 at once [/s] ", "CPU [us]", "takes 6 rounds"} {
		if text := c.text(); !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
}
