package main

import (
	"github.com/spf13/cobra"

	"github.com/tunneld/tunneld/plugins/azrelay/azrelaycmd"
)

// emulateCommand runs what emulates a plugin's far end, each plugin's own command.
func emulateCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "emulate",
		Short: "Emulate a far end on this machine, for offline development",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	for _, far := range []*cobra.Command{azrelaycmd.Emulate()} {
		run := far.RunE
		far.RunE = func(cmd *cobra.Command, args []string) error {
			surviveReaders()
			ctx, stop := untilInterrupted(cmd.Context())
			defer stop()
			cmd.SetContext(ctx)
			return run(cmd, args)
		}
		cmd.AddCommand(far)
	}
	return cmd
}
