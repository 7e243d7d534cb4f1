package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/tunneld/tunneld/core/conformance"
)

// pluginTestCommand is the conformance kit.
func pluginTestCommand() *cobra.Command {
	var o conformance.Options
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "test --config PATH --upstream TYPE.NAME --target HOST:PORT [-- FAR_END_COMMAND…]",
		Short: "Test a plugin against the protocol: exit status 0 if it conforms",
		Long: `test starts the plugin of one upstream like the daemon and checks it against the
plugin protocol: docs/conformance.md lists the checks.

The far end has to be running, or you give its command after --. The kit starts that
command, which has to stay in the foreground, and kills it at the end, to check how
the plugin handles it. If the target is a loopback address, the kit serves it;
otherwise it assumes an echo service there, and checks less.

Exit status: 0, every check passed; 1, one failed; 2, the command line is wrong; 78,
the configuration is.`,
		Example: `  tunneld plugin test --config kit.hcl --upstream acme.kit --target 127.0.0.1:7007
  tunneld plugin test -c kit.hcl --upstream acme.kit --target 127.0.0.1:7007 -- acme-server --port 8080`,
		Args: func(cmd *cobra.Command, args []string) error {
			if n := cmd.ArgsLenAtDash(); n > 0 || n < 0 && len(args) > 0 {
				return fmt.Errorf("unexpected argument %q: the far end's command comes after --", args[0])
			}
			for _, name := range []string{"config", "upstream", "target"} {
				if !cmd.Flags().Changed(name) {
					return fmt.Errorf("--%s is required", name)
				}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			o.FarEnd = args
			return testPlugin(cmd, o, asJSON)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&o.ConfigPath, "config", "c", "", "the configuration with the upstream: a file, or a folder of *.hcl")
	f.StringVar(&o.Upstream, "upstream", "", "the upstream to test, TYPE.NAME")
	f.StringVar(&o.Target, "target", "", "HOST:PORT to ask the plugin for")
	f.StringVar(&o.Serve, "serve", "", "HOST:PORT on loopback to serve, if the far end leads the target there (default: the target)")
	f.StringVar(&o.Refused, "refused", "", "HOST:PORT where nothing listens (default: a free port beside the served one)")
	f.BoolVar(&o.NoRefused, "no-refused", false, "the upstream always leads to the same target")
	f.StringSliceVar(&o.Lacks, "far-end-lacks", nil, "what the far end cannot do: half-close, reset")
	f.DurationVar(&o.Timeout, "timeout", 10*time.Second, "limit for each step")
	f.BoolVar(&asJSON, "json", false, "print the report as JSON")
	return cmd
}

func testPlugin(cmd *cobra.Command, o conformance.Options, asJSON bool) error {
	if o.Timeout <= 0 {
		return usageError{errors.New("--timeout has to be more than 0")}
	}
	ctx, stop := untilInterrupted(cmd.Context())
	defer stop()
	daemon := options(o.ConfigPath)
	o.Version, o.Bundled, o.Self = daemon.Version, daemon.Bundled, daemon.Self
	report, err := conformance.Run(ctx, o)
	var bad *conformance.ConfigError
	switch {
	case errors.As(err, &bad):
		bad.Write(cmd.ErrOrStderr())
		return statusError(exitInvalid)
	case errors.Is(err, conformance.ErrInvalid):
		return usageError{err}
	case errors.Is(err, context.Canceled):
		return errors.New("plugin test: interrupted")
	case err != nil:
		return fmt.Errorf("plugin test: %w", err)
	}
	if asJSON {
		e := json.NewEncoder(cmd.OutOrStdout())
		e.SetEscapeHTML(false)
		e.SetIndent("", "  ")
		err = e.Encode(report)
	} else {
		err = report.Write(cmd.OutOrStdout())
	}
	if err != nil {
		return err
	}
	if !report.OK {
		return statusError(exitFailed)
	}
	return nil
}
