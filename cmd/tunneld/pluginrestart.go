package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/tunneld/tunneld/core"
)

func pluginRestartCommand() *cobra.Command {
	var f daemonFlags
	cmd := &cobra.Command{
		Use:   "restart NAME",
		Short: "Restart a plugin of the running daemon",
		Long: `restart makes the running daemon start a plugin in use again, beside the running
process, and waits. The new process takes the new connections; the old one exits when
the tunnels whose bytes it carries have ended, or after daemon.drain_timeout. Nothing
else changes, even if the configuration's files have.

Exit status: 0, the new process is in charge; 1, it could not be started, it rejects the
configuration, or the daemon could not be reached. The old process then stays.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.ask(cmd, func(ctx context.Context, address string) error {
				outcome, err := core.AskRestartPlugin(ctx, address, args[0])
				if err != nil {
					return err
				}
				// The configuration in force was valid: what is wrong is the plugin.
				outcome.Invalid = false
				return f.tell(cmd, outcome, outcomeWords{"restarted", "the plugin was not restarted, its process stays in charge"})
			})
		},
	}
	f.add(cmd, time.Minute)
	return cmd
}
