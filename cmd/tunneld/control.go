package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/tunneld/tunneld/core"
)

// daemonFlags say which running daemon a command is for.
type daemonFlags struct {
	config  string
	control string
	json    bool
	timeout time.Duration
}

func (f *daemonFlags) add(cmd *cobra.Command, timeout time.Duration) {
	cmd.Flags().StringVarP(&f.config, "config", "c", defaultConfig, "the daemon's configuration, which says where its control socket is")
	cmd.Flags().StringVar(&f.control, "control", "", "the control socket itself, unix:///path or a path")
	cmd.Flags().BoolVar(&f.json, "json", false, "print JSON")
	cmd.Flags().DurationVar(&f.timeout, "timeout", timeout, "how long to wait for the daemon")
}

// address finds the control socket.
func (f *daemonFlags) address(cmd *cobra.Command) (string, error) {
	switch {
	case f.control != "" && cmd.Flags().Changed("config"):
		return "", usageError{fmt.Errorf("--config and --control exclude each other; see %s --help", cmd.CommandPath())}
	case f.timeout <= 0:
		return "", usageError{fmt.Errorf("--timeout must be longer than 0s; see %s --help", cmd.CommandPath())}
	case f.control != "":
		return f.control, nil
	}
	return core.ControlAddress(f.config)
}

// ask calls with the address and the time that the flags give.
func (f *daemonFlags) ask(cmd *cobra.Command, call func(ctx context.Context, address string) error) error {
	address, err := f.address(cmd)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), f.timeout)
	defer cancel()
	err = call(ctx, address)
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%w: --timeout is %s", err, f.timeout)
	}
	return err
}

func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// printable keeps what a terminal could be steered with out of a line: some of
// what a daemon says was said by a plugin.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		if unicode.IsSpace(r) {
			return ' '
		}
		return unicode.ReplacementChar
	}, s)
}

// printableLines is printable for a text of several lines.
func printableLines(s string) string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	for i, l := range lines {
		lines[i] = printable(strings.TrimRight(l, "\r"))
	}
	return strings.Join(lines, "\n")
}
