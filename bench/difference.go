package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strings"
	"text/tabwriter"
)

const (
	// missEach is the chance that an interval misses its ratio on one side: it is one
	// of 95 %.
	missEach = 0.025
	// missAll is the chance that -max-loss fails for one of all values, though nothing
	// was lost beyond the limit.
	missAll = 0.05
)

// line is one value of one row, of both builds.
type line struct {
	Row  string `json:"row"`
	Name string `json:"name"`
	// Cost: less is better.
	Cost bool `json:"cost"`
	// Old and New have a value of each round.
	Old []float64 `json:"old"`
	New []float64 `json:"new"`
	// Ratio is the median of new to old, round by round; nil: a value is negative.
	Ratio *float64 `json:"ratio"`
	// Interval has that ratio in 95 % of all comparisons; nil: there are too few rounds.
	Interval *[2]float64 `json:"interval"`
}

// lines are all values that both builds have.
func lines(all []metric, rows []string, got [2]results) (out []line) {
	for _, row := range rows {
		for _, m := range all {
			l := line{Row: row, Name: m.name, Cost: m.cost, Old: got[0][m.name][row], New: got[1][m.name][row]}
			if len(l.Old) == 0 || len(l.New) == 0 {
				continue
			}
			if r := l.ratios(); r != nil {
				v, _ := median(r)
				l.Ratio = &v
				if low, high, ok := bounds(r, missEach); ok {
					l.Interval = &[2]float64{low, high}
				}
			}
			out = append(out, l)
		}
	}
	return out
}

// ratios are those of the rounds, or nil where one would say nothing.
func (l line) ratios() (all []float64) {
	for i := range min(len(l.Old), len(l.New)) {
		before, after := l.Old[i], l.New[i]
		switch {
		case before < 0 || after < 0:
			return nil
		case before == after:
			all = append(all, 1)
		default:
			all = append(all, min(after/before, endless)) // it is the rank that counts
		}
	}
	return all
}

// endless is a ratio to nothing, which JSON has no number for.
const endless = math.MaxFloat64

func ratioText(v float64) string {
	if v > endless/4 { // a median between two may be less than all of it
		return "∞"
	}
	return fmt.Sprintf("%.3f", v)
}

// verdict says what the interval does.
func (l line) verdict() string {
	switch {
	case l.Ratio == nil:
		return ""
	case l.Interval == nil:
		return "?"
	case l.Interval[0] <= 1 && l.Interval[1] >= 1:
		return "~"
	case l.Interval[0] > 1 == l.Cost:
		return "worse"
	}
	return "better"
}

// loss returns the least and the most that the new build may have lost, in percent of
// the old one's value, each wrong by a chance of at most miss. Less than zero is a
// gain.
func (l line) loss(miss float64) (least, most float64, ok bool) {
	r := l.ratios()
	if r == nil {
		return 0, 0, false
	}
	low, high, ok := bounds(r, miss)
	if l.Cost {
		return 100 * (low - 1), 100 * (high - 1), ok
	}
	return 100 * (1 - high), 100 * (1 - low), ok
}

// report writes the comparison, and returns errLoss if that is the outcome.
func (c comparison) report(out io.Writer, asJSON bool) error {
	var err error
	if asJSON {
		e := json.NewEncoder(out)
		e.SetIndent("", " ")
		err = e.Encode(c)
	} else {
		_, err = io.WriteString(out, c.text())
	}
	if err != nil || c.maxLoss <= 0 {
		return err
	}
	shown, open := c.losses()
	if len(open) > 0 && !asJSON {
		_, err = fmt.Fprintf(out, "\nNot decided: a loss of %g %% may be hidden in the spread of %s.\n", c.maxLoss, strings.Join(open, "; "))
	}
	if err == nil && len(shown) > 0 {
		err = fmt.Errorf("%w (%g %%): %s", errLoss, c.maxLoss, strings.Join(shown, "; "))
	}
	return err
}

// losses are the lines whose loss is certainly beyond the limit, and those where it
// may be.
func (c comparison) losses() (shown, open []string) {
	for _, l := range c.Lines {
		least, most, ok := l.loss(missAll / float64(len(c.Lines)))
		switch name := l.Row + ": " + l.Name; {
		case ok && least > c.maxLoss:
			shown = append(shown, fmt.Sprintf("%s (at least %.3g %%)", name, least))
		case ok && most > c.maxLoss:
			open = append(open, name)
		}
	}
	return shown, open
}

// text is the tables: one for each row, as a reader of benchstat knows them.
func (c comparison) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "old: %s\nnew: %s\n%d CPUs, %d rounds of %g s\n", c.Old, c.New, c.CPUs, c.Rounds, c.Seconds)
	w := tabwriter.NewWriter(&b, 0, 0, 1, ' ', 0)
	row := ""
	intervals, differ := 0, 0
	for _, l := range c.Lines {
		if l.Row != row {
			row = l.Row
			_ = w.Flush() // it writes to b, which does not fail
			fmt.Fprintf(w, "\n| %s\t| old\t| new\t| new/old\t| 95 %%\t| \t|\n|---\t|---\t|---\t|---\t|---\t|---\t|\n", row)
		}
		ratio, interval := "", ""
		if l.Ratio != nil {
			ratio = ratioText(*l.Ratio)
		}
		if l.Interval != nil {
			intervals++
			interval = ratioText(l.Interval[0]) + " to " + ratioText(l.Interval[1])
		}
		verdict := l.verdict()
		if verdict == "better" || verdict == "worse" {
			differ++
		}
		fmt.Fprintf(w, "| %s\t| %s\t| %s\t| %s\t| %s\t| %s\t|\n", l.Name, side(l.Old), side(l.New), ratio, interval, verdict)
	}
	_ = w.Flush() // as above
	fmt.Fprintf(&b, "\nold, new: median ± half of what lies between the quartiles\n"+
		"~: the interval includes 1; the spread is larger than the difference\n")
	if intervals == 0 {
		fmt.Fprintf(&b, "?: an interval of 95 %% takes %d rounds at least\n", fewest(missEach))
		return b.String()
	}
	fmt.Fprintf(&b, "%d of %d values differ; of two equal builds up to %.1f would, by chance\n", differ, intervals, 2*missEach*float64(intervals))
	return b.String()
}

func side(v []float64) string {
	m, _ := median(v)
	return fmt.Sprintf("%.4g ± %.0f %%", m, 100*spread(v))
}
