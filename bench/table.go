package main

import (
	"bufio"
	"fmt"
	"io"
	"runtime"
	"strings"
	"text/tabwriter"
)

// print writes the medians, and their ratios to those of some rows.
func print(out io.Writer, rows []row, order []metric, got results) error {
	b := bufio.NewWriter(out)
	fmt.Fprintf(b, "%d CPUs, %s, %s/%s; medians\n\n", runtime.NumCPU(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
	for _, table := range []struct{ title, to string }{
		{"medians", ""},
		{"ratio to HAProxy", "haproxy"},
		{"ratio to no proxy", "none"},
		{"ratio to tunneld direct", "tunneld"},
		{"ratio to the far end asked directly", "asked"},
		{"ratio to SOCKS5 without a password", "open"},
	} {
		w := tabwriter.NewWriter(b, 0, 0, 1, ' ', 0)
		names := []string{}
		for _, r := range rows {
			names = append(names, r.name)
		}
		fmt.Fprintf(w, "| %s\t| %s\t|\n|---\t%s|\n", table.title, strings.Join(names, "\t| "), strings.Repeat("|---\t", len(rows)))
		for _, m := range order {
			line, empty := "| "+m.name+"\t", true
			for _, r := range rows {
				text := cell(got[m.name], r.name, table.to)
				line += "| " + text + "\t"
				empty = empty && text == ""
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

// cell is a median, or a ratio to another row.
func cell(byRow map[string][]float64, row, to string) string {
	v, ok, form := 0.0, false, "%.2f"
	if to == "" {
		form = "%.4g"
		v, ok = median(byRow[row])
	} else {
		v, ok = median(ratios(byRow[row], byRow[to]))
	}
	if !ok {
		return ""
	}
	return fmt.Sprintf(form, v)
}
