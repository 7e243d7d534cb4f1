package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tunneld/tunneld/internal/logqueue"
	"github.com/tunneld/tunneld/internal/userfile"
	"github.com/tunneld/tunneld/plugins/azrelay"
	"github.com/tunneld/tunneld/plugins/azrelay/azrelayemu"
	"github.com/tunneld/tunneld/plugins/sdk"
)

func azrelayCommand() *cobra.Command {
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
		Long: `token signs a shared access signature for a hybrid connection and writes it to
standard output; when it ends goes to standard error. Whoever has the token has the
key's right until then, so it is not written to a terminal unless --show is given.
The key is read from a file, or with "-" from standard input: an argument could be
read in the list of processes.`,
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
		return "", usageError{fmt.Errorf("%s holds no key", file)}
	}
	return key, nil
}

func emulateCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "emulate",
		Short: "Emulate a far end on this machine, for offline development",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(emulateAzrelayCommand())
	return cmd
}

func emulateAzrelayCommand() *cobra.Command {
	var (
		o           azrelayemu.Options
		name        string
		keyName     string
		keyFile     string
		forward     string
		bridge      map[string]string
		anonymous   bool
		authorities string
	)
	cmd := &cobra.Command{
		Use:   "azrelay",
		Short: "Emulate Azure Relay's Hybrid Connections until interrupted",
		Long: `azrelay emulates the service with one hybrid connection: senders and listeners
connect to it as they would to Azure. With --forward it brings a listener that
forwards to a TCP address; with --bridge one that speaks azbridge's framing. Other
listeners need a token of the key, with --anonymous as well. What happens to each
connection goes to standard error.

  tunneld emulate azrelay --key-file key --forward 127.0.0.1:5432`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if forward != "" && len(bridge) > 0 {
				return usageError{errors.New("give --forward or --bridge: a hybrid connection has one framing")}
			}
			switch {
			case keyFile == "" && !anonymous:
				return usageError{errors.New("give --key-file, or --anonymous to let every sender in")}
			case keyFile == "" && forward == "" && len(bridge) == 0:
				return usageError{errors.New("give --key-file, --forward or --bridge: a listener needs a token, also where senders need none")}
			}
			if keyFile != "" {
				key, err := readKey(cmd.InOrStdin(), keyFile)
				if err != nil {
					return err
				}
				o.Keys = map[string]azrelayemu.Key{keyName: {Value: key, Rights: azrelayemu.Manage}}
			}
			o.HybridConnections = map[string]azrelayemu.HybridConnection{name: {Anonymous: anonymous}}
			if forward != "" {
				o.Forward = []azrelayemu.Forward{{HybridConnection: name, Target: forward}}
			}
			if len(bridge) > 0 {
				o.Forward = []azrelayemu.Forward{{HybridConnection: name, Framing: azrelayemu.FramingAzbridge, Ports: bridge}}
			}
			o.TLS = authorities != ""
			log := logqueue.New(cmd.ErrOrStderr(), nil)
			defer log.Flush()
			// Debug, since all that the service has to say of a connection is that.
			o.Log = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
			return emulateAzrelay(cmd, o, authorities)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.Address, "address", "127.0.0.1:0", "where to listen; of this machine alone")
	f.StringVar(&name, "hybrid-connection", "demo", "the hybrid connection's path")
	f.StringVar(&keyName, "key-name", "RootManageSharedAccessKey", "the shared access policy; it has every right")
	f.StringVar(&keyFile, "key-file", "", "the file with the policy's key, or - for standard input")
	f.BoolVar(&anonymous, "anonymous", false, "let senders in without a token; listeners still need one")
	f.StringVar(&forward, "forward", "", "forward connections to this host:port")
	f.StringToStringVar(&bridge, "bridge", nil, "forward azbridge's ports: name=host:port,…")
	f.StringVar(&authorities, "tls-ca-file", "", "serve wss:// and write the authority of its certificate to this file")
	return cmd
}

func emulateAzrelay(cmd *cobra.Command, o azrelayemu.Options, authorities string) error {
	surviveReaders()
	ctx, stop := untilInterrupted(cmd.Context())
	defer stop()
	s, err := azrelayemu.Start(o)
	if err != nil {
		return err
	}
	defer s.Close()
	if authorities != "" {
		if err := os.WriteFile(authorities, s.CA(), 0o644); err != nil {
			return fmt.Errorf("emulate azrelay: %w", err)
		}
	}
	// An upstream takes host:port for wss, and ws:// alone for plain.
	endpoint := s.Addr()
	if !o.TLS {
		endpoint = "ws://" + endpoint
	}
	if _, err := fmt.Fprintf(cmd.OutOrStdout(), "endpoint = %q\n", endpoint); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}
