// Package azrelaycmd has tunneld's commands for Azure Relay: one signs a token for use
// elsewhere, the other emulates the service.
package azrelaycmd

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tunneld/tunneld/internal/userfile"
	"github.com/tunneld/tunneld/plugins/azrelay"
	"github.com/tunneld/tunneld/plugins/sdk"
)

// usageError is a command line that cannot be understood.
type usageError struct{ error }

// Usage tells the program which exit status that is.
func (usageError) Usage() {}

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
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if isTerminal(cmd.OutOrStdout()) && !show {
				return usageError{errors.New("standard output is a terminal: send the token somewhere else, or add --show")}
			}
			key, err := readKey(cmd.InOrStdin(), keyFile)
			if err != nil {
				return err
			}
			c.Key = sdk.NewSecret(key)
			token, ends, err := azrelay.Token(&c, time.Now())
			if err != nil {
				return usageError{err}
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
	f.StringVar(&keyFile, "key-file", "", "the file with the policy's key, or - for standard input")
	f.DurationVar(&c.TokenTTL, "ttl", time.Hour, "how long the token is valid")
	f.BoolVar(&show, "show", false, "write the token to a terminal as well")
	for _, name := range []string{"namespace", "hybrid-connection", "key-name", "key-file"} {
		if err := cmd.MarkFlagRequired(name); err != nil {
			panic(err) // the flag is defined above
		}
	}
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

// maxKey bounds a key's file, in bytes.
const maxKey = 64 << 10

func readKey(stdin io.Reader, file string) (string, error) {
	var f userfile.File
	var err error
	if file == "-" {
		f, err = userfile.ReadFrom(stdin, maxKey)
	} else {
		f, err = userfile.Read(file, maxKey)
	}
	if err != nil {
		return "", fmt.Errorf("read key: %w", err)
	}
	key := strings.TrimSpace(string(f.Data))
	if key == "" {
		return "", usageError{fmt.Errorf("%s contains no key", file)}
	}
	return key, nil
}
