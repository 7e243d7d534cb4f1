package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/tunneld/tunneld/core"
	"github.com/tunneld/tunneld/plugins/azrelay/azrelaycmd"
	"github.com/tunneld/tunneld/plugins/sdk"
)

// defaultConfig is where run looks for the configuration.
const defaultConfig = "/etc/tunneld"

// stdinName is what diagnostics call standard input.
const stdinName = "standard input"

func newRoot(stdin io.Reader, stdout, stderr io.Writer) *cobra.Command {
	root := &cobra.Command{
		Use:   "tunneld",
		Short: "Carry TCP connections through networks that let only an odd protocol pass",
		Long: `tunneld gives any TCP client a plain local port and carries its connection
through a network that lets only an odd protocol pass. Each protocol is a plugin,
a process of its own. Start with:

  tunneld demo                        see it work, with emulated far ends
  tunneld validate /etc/tunneld       check a configuration
  tunneld run --config /etc/tunneld   run the daemon
  tunneld status                      see what it does`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.SetFlagErrorFunc(flagError)
	root.Version = versionLine()
	root.SetVersionTemplate("{{.Version}}\n")
	root.Flags().Bool("version", false, "print the version")
	root.AddCommand(runCommand(), reloadCommand(), statusCommand(), validateCommand(), fmtCommand(), pluginCommand(), versionCommand(), demoCommand(), azrelaycmd.Command(), emulateCommand())
	for _, c := range append(root.Commands(), root) {
		checkArgs(c)
	}
	return root
}

func validateCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "validate PATH",
		Short: "Check a configuration: exit status 0, or 78 with what is wrong",
		Long: `validate checks a configuration, a file or a folder of *.hcl, like run; "-" reads
standard input, with relative paths from the working folder. It starts the plugins
that the configuration names, since they define what their blocks may contain; it
binds and dials nothing. Exit status 1: it could not be checked, because a plugin
does not start or a secret's file is not there yet.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			opts := options(args[0])
			if args[0] == "-" {
				opts.ConfigPath, opts.Stdin = stdinName, cmd.InOrStdin()
			}
			diags, err := core.Validate(cmd.Context(), opts)
			diags.Write(cmd.ErrOrStderr())
			if err != nil {
				return fmt.Errorf("validate: %w", err)
			}
			if diags.HasErrors() {
				return statusError(exitInvalid)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: the configuration is valid\n", opts.ConfigPath)
			return nil
		},
	}
}

func pluginCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "plugin",
		Short: "List, describe, test and restart plugins",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	var config, format string
	list := &cobra.Command{
		Use:   "list",
		Short: "List the plugins: the bundled ones, those in the plugin folder, and with --config its own",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			infos, err := core.Plugins(cmd.Context(), options(config))
			if err != nil {
				return err
			}
			return writePlugins(cmd, infos)
		},
	}
	schema := &cobra.Command{
		Use:   "schema NAME",
		Short: "Show what an upstream of a plugin may contain",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !slices.Contains(core.SchemaFormats, format) {
				return usageError{fmt.Errorf("there is no format %q: write one of %s", format, strings.Join(core.SchemaFormats, ", "))}
			}
			return core.WriteSchema(cmd.Context(), cmd.OutOrStdout(), options(config), args[0], format)
		},
	}
	schema.Flags().StringVar(&format, "format", "text", "text, hcl, json or markdown")
	for _, c := range []*cobra.Command{list, schema} {
		c.Flags().StringVarP(&config, "config", "c", "", "a configuration whose plugins to include")
	}
	serve := &cobra.Command{
		Use:    "serve NAME",
		Short:  "Serve as a bundled plugin, for the daemon",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			for _, p := range bundled() {
				if p.Name == args[0] {
					return statusError(sdk.Serve(p))
				}
			}
			return usageError{fmt.Errorf("there is no bundled plugin %q", args[0])}
		},
	}
	cmd.AddCommand(list, schema, pluginTestCommand(), pluginRestartCommand(), serve)
	return cmd
}

func writePlugins(cmd *cobra.Command, infos []core.PluginInfo) error {
	w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tVERSION\tSOURCE\tSUMMARY")
	failed := false
	for _, p := range infos {
		if p.Err != nil {
			failed = true
			fmt.Fprintf(w, "%s\t-\t%s\tdoes not start, see below\n", p.Name, p.Source)
			continue
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", p.Name, p.Version, p.Source, p.Summary)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, p := range infos {
		if p.Err != nil {
			fmt.Fprintf(cmd.ErrOrStderr(), "tunneld: %v\n", p.Err)
		}
	}
	if failed {
		return statusError(exitFailed)
	}
	return nil
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), versionLine())
			return err
		},
	}
}
