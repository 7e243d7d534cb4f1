package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/tunneld/tunneld/core"
)

func demoCommand() *cobra.Command {
	var once bool
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "See every protocol work, on this machine alone",
		Long: `demo starts an emulated far end for each protocol and an echo service behind
them, all on loopback. It writes a configuration, runs the daemon with it, sends
1 MiB through every listener and back, and prints a table. Then it stays up for you
to try, until interrupted.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runDemo(cmd, once) },
	}
	cmd.Flags().BoolVar(&once, "once", false, "end after the table: exit status 0, or 1 if a row failed")
	return cmd
}

// demoStart bounds the start of the daemon and its plugins.
const demoStart = 60 * time.Second

func runDemo(cmd *cobra.Command, once bool) (err error) {
	surviveReaders()
	ctx, stop := untilInterrupted(cmd.Context())
	defer stop()
	dir, err := os.MkdirTemp("", "tunneld-demo-")
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	echo, err := startEcho()
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	defer echo.Close()
	ends, err := startFarEnds(dir, echo.Addr())
	defer func() {
		for _, e := range ends {
			err = errors.Join(err, e.close())
		}
	}()
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}

	path := filepath.Join(dir, "tunneld.hcl")
	text, err := core.Format(demoConfig(dir, ends), path)
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	if err := os.WriteFile(path, text, 0o600); err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	out := cmd.OutOrStdout()
	fmt.Fprintf(out, "# %s\n%s\n", path, text)

	logFile, err := os.Create(filepath.Join(dir, "tunneld.log"))
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	defer logFile.Close()
	log := newDemoLog(logFile)
	opts := options(path)
	opts.Log = log
	starting, cancel := context.WithTimeout(ctx, demoStart)
	daemon, diags, err := core.Start(starting, opts)
	cancel()
	diags.Problems().Write(cmd.ErrOrStderr())
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	defer func() {
		// What is tried by hand ends with the demo.
		now, cancel := context.WithCancel(context.Background())
		cancel()
		err = errors.Join(err, daemon.Stop(now))
	}()

	failed, err := printRows(ctx, out, daemon, ends, log)
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	if failed {
		fmt.Fprintf(out, "\nA row failed. The daemon's log:\n\n")
		if _, err := io.Copy(out, bytes.NewReader(log.text())); err != nil {
			return fmt.Errorf("demo: %w", err)
		}
	}
	if !once {
		if err := stay(ctx, out, daemon, dir); err != nil {
			return fmt.Errorf("demo: %w", err)
		}
	}
	if failed {
		return statusError(exitFailed)
	}
	return nil
}

func printRows(ctx context.Context, out io.Writer, daemon *core.Daemon, ends []farEnd, log *demoLog) (failed bool, err error) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "PROTOCOL\tLISTENER\tTARGET\tPATH\tDIAL\tBYTES\tRESULT")
	for i, l := range daemon.Status().Listeners {
		sent, rowErr := roundTrip(ctx, l.Address)
		line := log.connection(ctx, l.ID)
		result := "ok"
		switch {
		case rowErr != nil:
			result = rowErr.Error()
			if line.Err != "" {
				result = line.Err
			}
		case line.Path != ends[i].path:
			result = fmt.Sprintf("the path is %q, not %q", line.Path, ends[i].path)
		}
		failed = failed || result != "ok"
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%d\t%s\n", ends[i].protocol, l.Address, l.Target, line.Path, line.dial(), sent, result)
	}
	return failed, w.Flush()
}

// stay waits for the end, after telling what can be tried.
func stay(ctx context.Context, out io.Writer, daemon *core.Daemon, dir string) error {
	var text strings.Builder
	fmt.Fprintf(&text, `
The daemon stays up. Each listener leads to an echo service through its protocol.
Try one from another terminal:

`)
	for _, l := range daemon.Status().Listeners {
		host, port := splitAddress(l.Address)
		fmt.Fprintf(&text, "  nc %s %s    # %s\n", host, port, l.ID)
	}
	fmt.Fprintf(&text, "\nWhat it logs: tail -f %s\nEnd it with Ctrl-C.\n", filepath.Join(dir, "tunneld.log"))
	if _, err := io.WriteString(out, text.String()); err != nil {
		return err // nobody is there to try it
	}
	<-ctx.Done()
	return nil
}
