package main

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/tunneld/tunneld/core"
	"github.com/tunneld/tunneld/core/status"
)

type reloadFlags struct {
	daemonFlags
	options status.ReloadOptions
}

func reloadCommand() *cobra.Command {
	var f reloadFlags
	cmd := &cobra.Command{
		Use:   "reload",
		Short: "Make the running daemon read its configuration again",
		Long: `reload makes the running daemon read its configuration again, waits, and prints
what changed. It finds the daemon by its configuration, even a broken one, or by
--control.

A configuration without a listener is invalid, since its file was probably cut short;
with --allow-empty the daemon closes all of its listeners.

Exit status: 0, the new configuration is in force; 78, it is invalid; 1, it could not
be put in force (an address is taken, a plugin does not start, a secret's file is not
there yet), or the daemon could not be reached. Unless it is 0, the old one stays in
force. An interrupted reload is cancelled.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.ask(cmd, func(ctx context.Context, address string) error { return reload(ctx, cmd, &f, address) })
		},
	}
	f.add(cmd, time.Minute)
	cmd.Flags().BoolVar(&f.options.AllowEmpty, "allow-empty", false, "let the daemon close all of its listeners")
	return cmd
}

func reload(ctx context.Context, cmd *cobra.Command, f *reloadFlags, address string) error {
	outcome, err := core.AskReloadWith(ctx, address, f.options)
	if err != nil {
		return err
	}
	if cmd.Flags().Changed("config") {
		noteOther(ctx, cmd, f.config, address)
	}
	return f.tell(cmd, outcome, outcomeWords{"reloaded", "the reload failed, the old configuration stays in force"})
}

// outcomeWords say what has happened, and what has not.
type outcomeWords struct{ done, failed string }

// tell prints an outcome and turns it into the exit status.
func (f *daemonFlags) tell(cmd *cobra.Command, outcome status.Reload, words outcomeWords) error {
	if f.json {
		if err := writeJSON(cmd.OutOrStdout(), outcome); err != nil {
			return err
		}
	} else {
		writeOutcome(cmd, outcome, words)
	}
	switch {
	case outcome.Error == "":
		return nil
	case outcome.Invalid:
		return statusError(exitInvalid)
	}
	return statusError(exitFailed)
}

func writeOutcome(cmd *cobra.Command, o status.Reload, words outcomeWords) {
	if o.Diagnostics != "" {
		fmt.Fprintf(cmd.ErrOrStderr(), "%s\n\n", printableLines(o.Diagnostics))
	}
	if o.Error != "" {
		fmt.Fprintf(cmd.ErrOrStderr(), "tunneld: %s: %s\n", words.failed, printable(o.Error))
		return
	}
	out := cmd.OutOrStdout()
	fmt.Fprintf(out, "%s in %s: generation %d is in force\n", words.done, short(o.Duration), o.Generation)
	if len(o.Changes) == 0 {
		fmt.Fprintln(out, "  nothing changed")
	}
	for _, c := range o.Changes {
		fmt.Fprintf(out, "  %s\n", printable(c))
	}
}

// noteOther says so where the daemon has another configuration than the one by
// which it was found.
func noteOther(ctx context.Context, cmd *cobra.Command, config, address string) {
	s, err := core.AskStatus(ctx, address)
	abs, absErr := filepath.Abs(config)
	if err != nil || absErr != nil || !filepath.IsAbs(s.Config) || filepath.Clean(s.Config) == abs {
		return
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "tunneld: note: the configuration of the daemon at %s is %s\n", address, printable(s.Config))
}
