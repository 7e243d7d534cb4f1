package main

import (
	"github.com/spf13/cobra"

	"github.com/tunneld/tunneld/plugins/azrelay/azrelaycmd"
	"github.com/tunneld/tunneld/plugins/sapsocks/sapsockscmd"
	"github.com/tunneld/tunneld/plugins/soht/sohtcmd"
	"github.com/tunneld/tunneld/plugins/websocks/websockscmd"
)

// emulateCommand runs what emulates a plugin's far end, each plugin's own command.
func emulateCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "emulate",
		Short: "Emulate a far end on this machine, for offline development",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	for _, far := range []*cobra.Command{sapsockscmd.Emulate(), websockscmd.Emulate(), sohtcmd.Emulate(), azrelaycmd.Emulate()} {
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
