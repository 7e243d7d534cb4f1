// Package azrelaycmd has tunneld's commands for Azure Relay: one signs a token for use
// elsewhere, the other emulates the service.
package azrelaycmd

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/tunneld/tunneld/internal/plugincmd"
	"github.com/tunneld/tunneld/plugins/azrelay"
	"github.com/tunneld/tunneld/plugins/sdk"
)

// Command returns the command "azrelay".
func Command() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "azrelay",
		Short: "Sign tokens for Azure Relay",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(tokenCommand())
	return cmd
}

// keyFileUsage is that of the flag --key-file.
const keyFileUsage = "the `FILE` with the policy's key, or - for standard input"

func tokenCommand() *cobra.Command {
	var (
		c       azrelay.Config
		keyFile string
		show    bool
	)
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Sign a token (SAS) for use elsewhere",
		Long: `token signs a shared access signature for a hybrid connection. It writes the token to
standard output, and its expiry to standard error. Whoever has the token has the
key's right until then, so it goes to a terminal only with --show. The key comes from
a file, or with "-" from standard input, since the list of processes shows arguments.`,
		Args: func(cmd *cobra.Command, args []string) error {
			for _, name := range []string{"namespace", "hybrid-connection", "key-name", "key-file"} {
				if !cmd.Flags().Changed(name) {
					return fmt.Errorf("--%s is required", name)
				}
			}
			return cobra.NoArgs(cmd, args)
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			if isTerminal(cmd.OutOrStdout()) && !show {
				return plugincmd.Usage("standard output is a terminal: send the token somewhere else, or add --show")
			}
			key, err := plugincmd.ReadSecret(cmd.InOrStdin(), keyFile, "key")
			if err != nil {
				return err
			}
			c.Key = sdk.NewSecret(key)
			token, ends, err := azrelay.Token(&c, time.Now())
			if err != nil {
				return plugincmd.UsageError{Err: err}
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "valid until %s\n", ends.UTC().Format(time.RFC3339))
			_, err = fmt.Fprintln(cmd.OutOrStdout(), token.Reveal())
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&c.Namespace, "namespace", "", "the relay's host name")
	f.StringVar(&c.HybridConnection, "hybrid-connection", "", "the hybrid connection's path")
	f.StringVar(&c.KeyName, "key-name", "", "the shared access policy")
	plugincmd.File(cmd, &keyFile, "key-file", keyFileUsage)
	f.DurationVar(&c.TokenTTL, "ttl", time.Hour, "how long the token is valid")
	f.BoolVar(&show, "show", false, "write the token to a terminal as well")
	return cmd
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	st, err := f.Stat()
	return err == nil && st.Mode()&os.ModeCharDevice != 0 && st.Mode()&os.ModeDevice != 0 && f.Name() != os.DevNull
}
