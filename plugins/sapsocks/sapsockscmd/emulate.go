// Package sapsockscmd has tunneld's command that emulates SAP BTP Connectivity.
package sapsockscmd

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tunneld/tunneld/internal/emu"
	"github.com/tunneld/tunneld/internal/plugincmd"
	"github.com/tunneld/tunneld/plugins/sapsocks/sapsocksemu"
)

// What is written to standard output.
const (
	printShell      = "shell"
	printVCAP       = "vcap"
	printDefaultEnv = "default-env"
	printUpstream   = "upstream"
)

// emulation is what the command line says.
type emulation struct {
	options    sapsocksemu.Options
	mappings   map[string]string
	secretFile string
	folder     string // of a service binding
	print      string
	method     byte
	resetAt    sapsocksemu.Step
}

// Emulate returns the command "sapsocks" of "emulate". It runs until its context ends.
func Emulate() *cobra.Command {
	_, cmd := newEmulation()
	return cmd
}

func newEmulation() (*emulation, *cobra.Command) {
	e := &emulation{print: printShell}
	e.options.Grant = sapsocksemu.GrantSecret
	cmd := plugincmd.Emulation{
		Protocol: "sapsocks",
		Short:    "Emulate SAP BTP Connectivity until interrupted",
		Long: `sapsocks emulates the SOCKS5 proxy, the Cloud Connectors behind it and the token
service. Each --map is a virtual host and port of a Cloud Connector and the backend
that it leads to; a location id before it, with a slash, is of another Cloud
Connector. It writes an application's binding: as a line for a shell, as VCAP_SERVICES,
as a default-env.json, or as an upstream of tunneld. --service-binding writes one as
Kubernetes mounts it.`,
		Example: `  tunneld emulate sapsocks --map orders-db.corp:5432=127.0.0.1:15432
  tunneld emulate sapsocks --map berlin/erp.corp:3300=erp:3300 --print default-env > default-env.json
  tunneld emulate sapsocks --map erp.corp:3300=127.0.0.1:3300 --fault-reply 04`,
		Address: "127.0.0.1:20004",
		Secure:  "have the token service speak https://",
		Start:   e.start,
	}.Command()
	o, f := &e.options, cmd.Flags()
	plugincmd.Address(cmd, &o.TokenAddress, "token-address", "127.0.0.1:20005", "where the token service listens: `HOST:PORT`, as --address")
	plugincmd.Pairs(cmd, &e.mappings, "map", "[LOCATION/]HOST:PORT=BACKEND", "a virtual host and port, and the backend's host and port")
	f.BoolVar(&o.Trusted, "trusted", false, "be a proxy in trusted mode, as Kyma's: no token is asked for")
	plugincmd.Choose(cmd, &o.Grant, "grant", "how clients of the token service prove themselves",
		plugincmd.Words(sapsocksemu.GrantSecret, sapsocksemu.GrantX509, sapsocksemu.GrantIAS))
	f.StringVar(&o.ClientID, "client-id", "", "the client's `ID`, instead of one as SAP forms them")
	plugincmd.File(cmd, &e.secretFile, "client-secret-file", "the `FILE` with the client's secret, or - for standard input; a random one without, anew each time")
	f.DurationVar(&o.TokenLife, "token-life", time.Hour, "how long a token is good")
	plugincmd.Number(cmd, &o.TokenSize, "token-size", "how long a token is at least, in `BYTES`", 0, 1<<20)
	plugincmd.Choose(cmd, &e.print, "print", "what is written to standard output",
		plugincmd.Words(printShell, printVCAP, printDefaultEnv, printUpstream))
	f.StringVar(&e.folder, "service-binding", "", "write the binding into this `FOLDER` too, a file for each credential")
	if err := cmd.MarkFlagDirname("service-binding"); err != nil {
		panic(err) // the flag is defined above
	}
	e.faults(cmd)
	return e, cmd
}

// faults defines the flags of what goes wrong.
func (e *emulation) faults(cmd *cobra.Command) {
	b, t, f := &e.options.Faults, &e.options.Faults.Token, cmd.Flags()
	steps := plugincmd.Named(sapsocksemu.StepGreeting, sapsocksemu.StepAuth, sapsocksemu.StepRequest)
	plugincmd.Choose(cmd, &b.Silent, "fault-silent-at", "never answer at this `STEP`", steps)
	plugincmd.Choose(cmd, &b.CloseAt, "fault-close-at", "close instead of answering at this `STEP`", steps)
	plugincmd.Choose(cmd, &e.resetAt, "fault-reset-at", "reset the connection instead of answering at this `STEP`", steps)
	plugincmd.Choose(cmd, &b.Garbage, "fault-garbage-at", "answer as a web server would at this `STEP`", steps)
	f.DurationVar(&b.Delay, "fault-delay", 0, "wait before each answer of the proxy")
	f.BoolVar(&b.Bytewise, "fault-byte-at-a-time", false, "send each byte of the proxy's answers on its own")
	plugincmd.Hex(cmd, &e.method, "fault-method", "choose this method, whatever was offered: ff is none")
	plugincmd.Hex(cmd, &b.AuthStatus, "fault-auth-status", "refuse each token with this status")
	f.BoolVar(&b.RefuseByReply, "fault-refuse-by-reply", false, "refuse tokens by reply 05 instead of a status")
	plugincmd.Hex(cmd, &b.Reply, "fault-reply", "answer each request with this reply")
	f.BoolVar(&b.ShortReply, "fault-short-reply", false, "send two bytes of a refusing reply, and close")
	f.BoolVar(&b.HalfReply, "fault-half-reply", false, "send two bytes of a refusing reply, and nothing more")
	f.StringVar(&b.Bound, "fault-bound", "", "the bound address of a successful reply, `HOST:PORT`")
	f.BoolVar(&b.WithData, "fault-with-data", false, "send a successful reply in one packet with the backend's first bytes")

	f.BoolVar(&t.Silent, "fault-token-silent", false, "have the token service never answer")
	f.DurationVar(&t.Delay, "fault-token-delay", 0, "wait before each answer of the token service")
	plugincmd.Number(cmd, &t.Status, "fault-token-status", "answer with this HTTP `STATUS` instead of a token", 200, 599)
	f.StringVar(&t.Body, "fault-token-body", "", "answer with this `TEXT` instead of a token")
	f.StringVar(&t.ContentType, "fault-token-content-type", "text/html", "the `TYPE` of such an answer")
	f.StringVar(&t.RetryAfter, "fault-token-retry-after", "", "the `VALUE` of Retry-After in such an answer")
	f.StringVar(&t.Redirect, "fault-token-redirect", "", "send clients of the token service to this `URL`")
	f.BoolVar(&t.Huge, "fault-token-huge", false, "answer a request for a token without an end")
	f.BoolVar(&t.BreakOff, "fault-token-break-off", false, "break off the token service's answer")
	f.BoolVar(&t.NoExpiry, "fault-token-no-expiry", false, "do not say when a token expires")
	f.BoolVar(&t.BornExpired, "fault-token-born-expired", false, "grant tokens that have expired")
}

func (e *emulation) start(cmd *cobra.Command, c plugincmd.Common) (plugincmd.FarEnd, error) {
	if err := e.complete(cmd, c); err != nil {
		return plugincmd.FarEnd{}, err
	}
	s, err := sapsocksemu.Start(e.options)
	if err != nil {
		return plugincmd.FarEnd{}, err
	}
	if e.folder != "" {
		if err := writeFolder(e.folder, s.Credentials()); err != nil {
			return plugincmd.FarEnd{}, errors.Join(err, s.Close())
		}
	}
	return plugincmd.FarEnd{Paste: e.binding(s, c), CA: []byte(s.Authority()), Close: s.Close}, nil
}

// complete makes the options of what the flags cannot set themselves.
func (e *emulation) complete(cmd *cobra.Command, c plugincmd.Common) error {
	o := &e.options
	switch {
	case o.Grant == sapsocksemu.GrantX509 && !c.TLS:
		return plugincmd.Usage("give --tls-ca-file: --grant x509 takes client certificates, so the token service speaks TLS")
	case o.Grant == sapsocksemu.GrantX509 && e.secretFile != "":
		return plugincmd.Usage("give --grant x509 or --client-secret-file: such a client has no secret")
	case o.TokenLife < time.Second:
		return plugincmd.Usage("--token-life is too short: give at least 1s")
	case o.Trusted && (e.print == printVCAP || e.print == printDefaultEnv):
		return plugincmd.Usage("a proxy in trusted mode has no binding: give --print upstream with --trusted")
	}
	o.Address, o.TLS, o.Log = c.Address, c.TLS, c.Log
	if e.secretFile != "" {
		secret, err := plugincmd.ReadSecret(cmd.InOrStdin(), e.secretFile, "client secret")
		if err != nil {
			return err
		}
		o.ClientSecret = secret
	}
	if cmd.Flags().Changed("fault-method") {
		o.Faults.Method = &e.method
	}
	if e.resetAt != 0 {
		if o.Faults.CloseAt != 0 {
			return plugincmd.Usage("give --fault-close-at or --fault-reset-at")
		}
		o.Faults.CloseAt, o.Faults.Reset = e.resetAt, true
	}
	if o.Faults.Bound != "" {
		if _, _, err := net.SplitHostPort(o.Faults.Bound); err != nil {
			return plugincmd.UsageError{Err: fmt.Errorf("--fault-bound: %w", err)}
		}
	}
	return e.connect()
}

// connect connects the Cloud Connectors that --map names; without any, one that maps
// nothing.
func (e *emulation) connect() error {
	connectors := map[string]map[string]string{}
	for virtual, backend := range e.mappings {
		location := ""
		if i := strings.LastIndexByte(virtual, '/'); i >= 0 {
			location, virtual = virtual[:i], virtual[i+1:]
		}
		if err := emu.CheckHostPort(virtual, backend); err != nil {
			return plugincmd.UsageError{Err: fmt.Errorf("--map: %w", err)}
		}
		if connectors[location] == nil {
			connectors[location] = map[string]string{}
		}
		connectors[location][virtual] = backend
	}
	if len(connectors) == 0 {
		connectors[""] = map[string]string{}
	}
	e.options.Connectors = connectors
	return nil
}
