package azrelaycmd

import (
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"github.com/tunneld/tunneld/internal/logqueue"
	"github.com/tunneld/tunneld/plugins/azrelay/azrelayemu"
)

// Emulate returns the command "azrelay" of "emulate". It runs until its context ends.
func Emulate() *cobra.Command {
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
connect to it as to Azure. With --forward it has a listener that forwards to a TCP
address; with --bridge one that speaks azbridge's framing. Other listeners need a
token signed by the key, even with --anonymous. Standard error has a line for each
event of a connection.

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
				return usageError{errors.New("give --key-file, --forward or --bridge: a listener needs a token, even if senders need none")}
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
			return emulate(cmd, o, authorities)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.Address, "address", "127.0.0.1:0", "where to listen, on loopback")
	f.StringVar(&name, "hybrid-connection", "demo", "the hybrid connection's path")
	f.StringVar(&keyName, "key-name", "RootManageSharedAccessKey", "the shared access policy; it has every right")
	f.StringVar(&keyFile, "key-file", "", "the file with the policy's key, or - for standard input")
	f.BoolVar(&anonymous, "anonymous", false, "let senders in without a token; listeners still need one")
	f.StringVar(&forward, "forward", "", "forward connections to this host:port")
	f.StringToStringVar(&bridge, "bridge", nil, "forward azbridge's ports: name=host:port,…")
	f.StringVar(&authorities, "tls-ca-file", "", "serve wss:// and write the certificate authority to this file")
	return cmd
}

func emulate(cmd *cobra.Command, o azrelayemu.Options, authorities string) error {
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
	<-cmd.Context().Done()
	return nil
}
