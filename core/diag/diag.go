// Package diag holds the diagnostics of a configuration, and prints them. It checks
// nothing itself.
package diag

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"unicode"
)

// Diagnostic is a problem of the configuration, as the user sees it. None of its
// texts holds a value that came from env or file, or that stands in an upstream,
// auth or plugin body.
type Diagnostic struct {
	// Warning makes it a warning; a diagnostic is an error otherwise.
	Warning bool
	// Note says of a warning that nothing is wrong: it names what a new version does
	// otherwise with this configuration, and how to have it as before.
	Note bool
	// Machine says that what is written may be right, but that this machine does
	// not give it now: an address that is taken, a plugin that does not start, the
	// file of a secret that is not there yet.
	Machine bool
	// Summary says what is wrong, in a line.
	Summary string
	// Detail says what to do next; may be empty.
	Detail string
	// File is the file's name as it was given, or empty.
	File string
	// Line counts from 1; 0: it is of no line.
	Line int
	// Block is the header of the block, `upstream "sapsocks" "onprem"`, or empty.
	Block string
	// Source is as much of line SourceLine as may be shown, or empty.
	Source string
	// SourceLine is the line where the attribute begins, which may be above Line.
	SourceLine int
}

// Diagnostics are diagnostics in the order of the source. They are an error to
// those who want one.
type Diagnostics []Diagnostic

// HasErrors says whether one of them is an error rather than a warning.
func (d Diagnostics) HasErrors() bool {
	return slices.ContainsFunc(d, func(d Diagnostic) bool { return !d.Warning })
}

// Problems are the diagnostics without the notes.
func (d Diagnostics) Problems() Diagnostics {
	return slices.DeleteFunc(slices.Clone(d), func(d Diagnostic) bool { return d.Note })
}

// Error returns the first error and how many more there are.
func (d Diagnostics) Error() string {
	var first string
	errors := 0
	for _, one := range d {
		if one.Warning {
			continue
		}
		if errors++; errors == 1 {
			first = one.inline()
		}
	}
	switch errors {
	case 0:
		return "no errors"
	case 1:
		return first
	}
	return fmt.Sprintf("%s (and %d more errors)", first, errors-1)
}

// inline is the diagnostic in one line, as a compiler would print it.
func (d Diagnostic) inline() string {
	s := printable(d.Summary)
	if d.Detail != "" {
		s += ": " + printable(d.Detail)
	}
	switch {
	case d.Line > 0:
		return fmt.Sprintf("%s:%d: %s", printable(d.File), d.Line, s)
	case d.File != "":
		return printable(d.File) + ": " + s
	}
	return s
}

// Sort brings diagnostics of several steps into the order of the source; those
// without a place come first.
func (d Diagnostics) Sort() {
	slices.SortStableFunc(d, func(a, b Diagnostic) int {
		return cmp.Or(strings.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line))
	})
}

// Write prints them for a terminal or a log, each followed by an empty line.
func (d Diagnostics) Write(w io.Writer) error {
	for _, one := range d {
		if _, err := io.WriteString(w, one.String()+"\n"); err != nil {
			return err
		}
	}
	return nil
}

// Log writes a record for each, with the texts that Write prints. The source is left
// out: the place is enough in a log.
func (d Diagnostics) Log(log *slog.Logger) {
	for _, one := range d {
		level, message := slog.LevelError, "configuration problem"
		switch {
		case one.Note:
			level, message = slog.LevelInfo, "configuration note"
		case one.Warning:
			level = slog.LevelWarn
		}
		var attrs []slog.Attr
		text := func(key, value string) {
			if value != "" {
				attrs = append(attrs, slog.String(key, printable(value)))
			}
		}
		text("file", one.File)
		if one.Line > 0 {
			attrs = append(attrs, slog.Int("line", one.Line))
		}
		text("block", one.Block)
		text("summary", one.Summary)
		text("detail", one.Detail)
		log.LogAttrs(context.Background(), level, message, attrs...)
	}
}

// String returns the diagnostic as Write prints it.
func (d Diagnostic) String() string {
	var b strings.Builder
	severity := "Error"
	switch {
	case d.Note:
		severity = "Note"
	case d.Warning:
		severity = "Warning"
	}
	fmt.Fprintf(&b, "%s: %s\n", severity, printable(d.Summary))
	if d.File != "" {
		fmt.Fprintf(&b, "  on %s", printable(d.File))
		if d.Line > 0 {
			fmt.Fprintf(&b, " line %d", d.Line)
		}
		if d.Block != "" {
			fmt.Fprintf(&b, ", in %s", printable(d.Block))
		}
		b.WriteString(":\n")
	}
	if d.Source != "" {
		fmt.Fprintf(&b, "%4d: %s\n", d.SourceLine, printable(d.Source))
	}
	if d.Detail != "" {
		fmt.Fprintf(&b, "\n  %s\n", printable(d.Detail))
	}
	return b.String()
}

// maxPrinted bounds a line of a diagnostic, in characters.
const maxPrinted = 400

// printable keeps what a terminal could be steered with, and endless lines, out
// of the output: names and texts come from files and plugins.
func printable(s string) string {
	var b strings.Builder
	n := 0
	for _, r := range s {
		if n++; n > maxPrinted {
			b.WriteString("…")
			break
		}
		switch {
		case r == '\t':
			b.WriteString("  ")
		case r == '\n':
			b.WriteByte(' ')
		case unicode.IsPrint(r):
			b.WriteRune(r)
		default:
			b.WriteRune(unicode.ReplacementChar)
		}
	}
	return b.String()
}
