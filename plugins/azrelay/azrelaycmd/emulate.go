package azrelaycmd

import (
	"fmt"
	"net"
	"net/http"

	"github.com/spf13/cobra"

	"github.com/tunneld/tunneld/internal/emu"
	"github.com/tunneld/tunneld/internal/plugincmd"
	"github.com/tunneld/tunneld/plugins/azrelay/azrelayemu"
)

// emulation is what the command line says.
type emulation struct {
	options          azrelayemu.Options
	name             string // of the hybrid connection
	keyName, keyFile string
	anonymous        bool
	forward          string
	bridge           map[string]string
	udp              []string
}

// Emulate returns the command "azrelay" of "emulate". It runs until its context ends.
func Emulate() *cobra.Command {
	_, cmd := newEmulation()
	return cmd
}

func newEmulation() (*emulation, *cobra.Command) {
	e := &emulation{}
	cmd := plugincmd.Emulation{
		Protocol: "azrelay",
		Short:    "Emulate Azure Relay's Hybrid Connections until interrupted",
		Long: `azrelay emulates the service with one hybrid connection: senders and listeners
connect to it as to Azure. With --forward it has a listener that forwards to a TCP
address; with --bridge one that speaks azbridge's framing. Other listeners need a
token signed by the key, even with --anonymous.`,
		Example: `  tunneld emulate azrelay --key-file key --forward 127.0.0.1:5432
  tunneld emulate azrelay --anonymous --bridge 5432=127.0.0.1:5432 --bridge 6379=cache:6379`,
		Address: "127.0.0.1:20008",
		Secure:  "serve wss://",
		Start:   e.start,
	}.Command()
	o, f := &e.options, cmd.Flags()
	f.StringVar(&o.Namespace, "namespace", "", "the relay's host `NAME`, which tokens may be for, and the certificate is")
	f.StringVar(&e.name, "hybrid-connection", "demo", "the hybrid connection's `PATH`")
	f.StringVar(&e.keyName, "key-name", "RootManageSharedAccessKey", "the shared access policy's `NAME`; it has every right")
	plugincmd.File(cmd, &e.keyFile, "key-file", keyFileUsage)
	f.BoolVar(&e.anonymous, "anonymous", false, "let senders in without a token; listeners still need one")
	f.StringVar(&e.forward, "forward", "", "forward connections to this `HOST:PORT`")
	plugincmd.Pairs(cmd, &e.bridge, "bridge", "NAME=HOST:PORT", "forward azbridge's port of this name there")
	f.StringSliceVar(&e.udp, "bridge-udp", nil, "`NAME` of an azbridge port that is for datagrams: streams are refused; may be repeated")
	f.DurationVar(&o.AcceptTimeout, "accept-timeout", 0, "how long a sender waits for a listener, instead of the service's 30s")

	b := &o.Faults
	plugincmd.Number(cmd, &b.Status, "fault-status", "refuse every sender with this HTTP `STATUS`", 400, 599)
	f.StringVar(&b.Reason, "fault-reason", "", "the `TEXT` of --fault-status, to which a TrackingId is added")
	f.BoolVar(&b.BadAccept, "fault-bad-accept", false, "answer with a wrong Sec-WebSocket-Accept")
	f.BoolVar(&b.Extension, "fault-extension", false, "answer with an extension that nobody offered")
	f.BoolVar(&b.Hang, "fault-silent", false, "take senders' requests and never answer")
	f.BoolVar(&b.DropPings, "fault-drop-pings", false, "forward no ping, so that none is answered")
	f.Int64Var(&b.CutAfter, "fault-cut-after", 0, "reset tunnels after so many `BYTES` in one direction")
	f.BoolVar(&b.CutFIN, "fault-cut-fin", false, "end them by FIN, with --fault-cut-after, and still without a Close frame")
	f.Int64Var(&b.CloseAfter, "fault-close-after", 0, "close tunnels from the service's side after so many `BYTES` in one direction")
	f.IntVar(&b.CloseCode, "fault-close-code", 1011, "the `CODE` of --fault-close-after")
	return e, cmd
}

// check says what is wrong with the flags, and what does not go together.
func (e *emulation) check() error {
	for _, target := range e.bridge {
		if err := emu.CheckHostPort(target); err != nil {
			return plugincmd.UsageError{Err: fmt.Errorf("--bridge: %w", err)}
		}
	}
	if e.forward != "" {
		if err := emu.CheckHostPort(e.forward); err != nil {
			return plugincmd.UsageError{Err: fmt.Errorf("--forward: %w", err)}
		}
	}
	switch {
	case e.forward != "" && len(e.bridge)+len(e.udp) > 0:
		return plugincmd.Usage("give --forward or --bridge: a hybrid connection has one framing")
	case e.keyFile == "" && !e.anonymous:
		return plugincmd.Usage("give --key-file, or --anonymous to let every sender in")
	case e.keyFile == "" && e.forward == "" && len(e.bridge)+len(e.udp) == 0:
		return plugincmd.Usage("give --key-file, --forward or --bridge: a listener needs a token, even if senders need none")
	}
	return nil
}

func (e *emulation) start(cmd *cobra.Command, c plugincmd.Common) (plugincmd.FarEnd, error) {
	if err := e.check(); err != nil {
		return plugincmd.FarEnd{}, err
	}
	o := &e.options
	o.Address, o.TLS, o.Log = c.Address, c.TLS, c.Log
	if e.keyFile != "" {
		key, err := plugincmd.ReadSecret(cmd.InOrStdin(), e.keyFile, "key")
		if err != nil {
			return plugincmd.FarEnd{}, err
		}
		o.Keys = map[string]azrelayemu.Key{e.keyName: {Value: key, Rights: azrelayemu.Manage}}
	}
	o.HybridConnections = map[string]azrelayemu.HybridConnection{e.name: {Anonymous: e.anonymous}}
	switch {
	case e.forward != "":
		o.Forward = []azrelayemu.Forward{{HybridConnection: e.name, Target: e.forward}}
	case len(e.bridge)+len(e.udp) > 0:
		o.Forward = []azrelayemu.Forward{{HybridConnection: e.name, Framing: azrelayemu.FramingAzbridge, Ports: e.bridge, UDPPorts: e.udp}}
	}
	if o.Faults.Status != 0 && o.Faults.Reason == "" {
		o.Faults.Reason = http.StatusText(o.Faults.Status)
	}
	s, err := azrelayemu.Start(*o)
	if err != nil {
		return plugincmd.FarEnd{}, err
	}
	return plugincmd.FarEnd{
		Paste: e.upstream(c, s.Addr()),
		CA:    s.CA(),
		Close: func() error { s.Close(); return nil },
	}, nil
}

// upstream returns the block that leads to the emulator.
func (e *emulation) upstream(c plugincmd.Common, address string) string {
	namespace, endpoint := e.options.Namespace, address
	if namespace == "" {
		namespace, _, _ = net.SplitHostPort(address)
	}
	// An upstream takes host:port for wss, and ws:// alone for plain.
	if !c.TLS {
		endpoint = "ws://" + endpoint
	}
	attributes := []plugincmd.Attribute{
		{Name: "namespace", Value: plugincmd.Quote(namespace)},
		{Name: "endpoint", Value: plugincmd.Quote(endpoint)},
		{Name: "hybrid_connection", Value: plugincmd.Quote(e.name)},
	}
	if !e.anonymous {
		attributes = append(attributes,
			plugincmd.Attribute{Name: "key_name", Value: plugincmd.Quote(e.keyName)},
			plugincmd.Attribute{Name: "key", Value: plugincmd.SecretOf(e.keyFile, "KEY")})
	}
	if len(e.bridge) > 0 {
		attributes = append(attributes, plugincmd.Attribute{Name: "framing", Value: plugincmd.Quote(azrelayemu.FramingAzbridge)})
	}
	return plugincmd.Upstream("azrelay", attributes, c.Trust()...).String()
}
