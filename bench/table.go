package main

import (
	"bufio"
	"fmt"
	"io"
	"runtime"
	"strings"
	"text/tabwriter"
)

// tables are what print writes: the medians, and their ratios to those of some rows.
var tables = []struct {
	title, to string
	tls       bool // of the rows with TLS alone
}{
	{title: "medians"},
	{title: "ratio to HAProxy", to: "haproxy"},
	{title: "ratio to no proxy", to: "none"},
	{title: "ratio to tunneld direct", to: "tunneld"},
	{title: "ratio to the far end asked directly", to: "asked"},
	{title: "ratio to SOCKS5 without a password", to: "open"},
	{title: "ratio to HAProxy with TLS", to: "haproxy-tls", tls: true},
}

// print writes the tables of the rows that were measured.
func print(out io.Writer, rows []row, order []metric, got results) error {
	b := bufio.NewWriter(out)
	fmt.Fprintf(b, "%d CPUs, %s, %s/%s; medians, ratios ± half of what lies between the quartiles\n\n", runtime.NumCPU(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
	for _, table := range tables {
		var shown []string
		for _, r := range rows {
			if !table.tls || speaksTLS(r.name) {
				shown = append(shown, r.name)
			}
		}
		var lines []string
		for _, m := range order {
			line, empty := "| "+m.name+"\t", true
			for _, name := range shown {
				text := cell(got[m.name], name, table.to)
				line += "| " + text + "\t"
				empty = empty && text == ""
			}
			if !empty {
				lines = append(lines, line+"|")
			}
		}
		if len(lines) == 0 {
			continue
		}
		w := tabwriter.NewWriter(b, 0, 0, 1, ' ', 0)
		fmt.Fprintf(w, "| %s\t| %s\t|\n|---\t%s|\n%s\n", table.title, strings.Join(shown, "\t| "), strings.Repeat("|---\t", len(shown)), strings.Join(lines, "\n"))
		if err := w.Flush(); err != nil {
			return err
		}
		fmt.Fprintln(b)
	}
	return b.Flush()
}

// cell is a median, or a ratio to another row and how it varies.
func cell(byRow map[string][]float64, row, to string) string {
	if to == "" {
		if v, ok := median(byRow[row]); ok {
			return fmt.Sprintf("%.4g", v)
		}
		return ""
	}
	all := ratios(byRow[row], byRow[to])
	v, ok := median(all)
	switch {
	case !ok:
		return ""
	case row == to:
		return "1"
	case len(all) == 1:
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.2f ± %.0f %%", v, 100*spread(all))
}
