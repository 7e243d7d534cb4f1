package plugincmd

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/tunneld/tunneld/internal/logqueue"
)

// Emulation is a command of "emulate": it runs an emulated far end until its context ends.
type Emulation struct {
	// Protocol is the plugin's name, and the command's.
	Protocol string
	Short    string
	// Long says what is emulated, and Example how; what all emulators have in common is
	// added.
	Long, Example string
	// Address is where it listens by default.
	Address string
	// Secure says what --tls-ca-file makes of it.
	Secure string
	// Start starts the far end, once the command line has been read.
	Start func(cmd *cobra.Command, c Common) (FarEnd, error)
}

// Common has the options of all emulators.
type Common struct {
	Address string
	// TLS: --tls-ca-file was given, with this absolute path.
	TLS    bool
	CAFile string
	Log    *slog.Logger
}

// FarEnd is an emulator that runs.
type FarEnd struct {
	// Paste is what a user puts elsewhere to reach it, whole lines.
	Paste string
	// CA is the authority of its certificate in PEM.
	CA    []byte
	Close func() error
}

// ways is what all emulators have in common.
const ways = `
It behaves like the original, oddities included; each flag that begins with --fault-
makes it do something else. It listens on loopback only. When it is ready, it writes
to standard output what to paste to reach it. Standard error has a line for each event
of a connection.
`

// Command returns the command; the flags of the protocol are still to be added.
func (e Emulation) Command() *cobra.Command {
	var c Common
	cmd := &cobra.Command{
		Use:     e.Protocol,
		Short:   e.Short,
		Long:    e.Long + "\n" + ways,
		Example: e.Example,
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return e.run(cmd, c) },
	}
	cmd.CompletionOptions.SetDefaultShellCompDirective(cobra.ShellCompDirectiveNoFileComp)
	Address(cmd, &c.Address, "address", e.Address, "where to listen: `HOST:PORT` on loopback; port 0 picks a free one")
	File(cmd, &c.CAFile, "tls-ca-file", e.Secure+" and write the certificate authority, which is made for the run, to this `FILE`")
	return cmd
}

func (e Emulation) run(cmd *cobra.Command, c Common) (err error) {
	log := logqueue.New(cmd.ErrOrStderr(), nil)
	defer log.Flush()
	// Debug, since all that an emulator has to say of a connection is that.
	c.Log = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	if c.TLS = c.CAFile != ""; c.TLS {
		c.CAFile = absolute(c.CAFile)
	}
	far, err := e.Start(cmd, c)
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("%w: end what listens there, or choose another port; 0 picks a free one", err)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, far.Close()) }()
	if c.TLS {
		if err := os.WriteFile(c.CAFile, far.CA, 0o644); err != nil {
			return fmt.Errorf("emulate %s: %w", e.Protocol, err)
		}
	}
	if _, err := fmt.Fprint(cmd.OutOrStdout(), far.Paste); err != nil {
		return err
	}
	<-cmd.Context().Done()
	return nil
}
