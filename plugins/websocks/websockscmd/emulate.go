// Package websockscmd has tunneld's command that emulates a WebSocks server.
package websockscmd

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tunneld/tunneld/internal/emu"
	"github.com/tunneld/tunneld/internal/plugincmd"
	"github.com/tunneld/tunneld/plugins/websocks/websocksemu"
)

// emulation is what the command line says.
type emulation struct {
	options websocksemu.Options
	users   *plugincmd.UserFiles
	stops   [3]websocksemu.Step // by Ending
	replace []string
	raw     string
}

// endings are those that a fault stops a connection by.
var endings = [...]websocksemu.Ending{websocksemu.Hang, websocksemu.Close, websocksemu.Reset}

// Emulate returns the command "websocks" of "emulate". It runs until its context ends.
func Emulate() *cobra.Command {
	_, cmd := newEmulation()
	return cmd
}

func newEmulation() (*emulation, *cobra.Command) {
	e := &emulation{}
	cmd := plugincmd.Emulation{
		Protocol: "websocks",
		Short:    "Emulate a WebSocks server until interrupted",
		Long: `websocks emulates a server of the original's kind. A client may ask for what --map
names, and for addresses of this machine, localhost included; ` + websocksemu.EchoTarget + ` is an
echo service. No user is asked for a password unless --user names one.`,
		Example: `  tunneld emulate websocks --map orders-db.corp:5432=127.0.0.1:15432
  tunneld emulate websocks --user alice=password.txt --tls-ca-file ca.pem --map db.corp:5432=postgres:5432
  tunneld emulate websocks --fault-status 502`,
		Address: "127.0.0.1:20006",
		Secure:  "serve wss://",
		Start:   e.start,
	}.Command()
	o, f := &e.options, cmd.Flags()
	plugincmd.Pairs(cmd, &o.Targets, "map", "HOST:PORT=BACKEND", "what a client may ask for, and the backend's host and port")
	e.users = plugincmd.Logins(cmd)
	f.StringSliceVar(&o.Names, "name", nil, "another `NAME` or address of the certificate, besides this machine's; may be repeated")
	f.DurationVar(&o.Idle, "idle", 0, "how long a connection without a tunnel may be silent, instead of the original's 15m")
	e.faults(cmd)
	return e, cmd
}

// faults defines the flags of what goes wrong.
func (e *emulation) faults(cmd *cobra.Command) {
	b, f := &e.options.Faults, cmd.Flags()
	steps := plugincmd.Named(websocksemu.Accepted, websocksemu.Requested, websocksemu.Upgraded, websocksemu.Framed, websocksemu.Greeted, websocksemu.Connected)
	plugincmd.Choose(cmd, &e.stops[websocksemu.Hang], "fault-silent-at", "say nothing more from this `STEP` on", steps)
	plugincmd.Choose(cmd, &e.stops[websocksemu.Close], "fault-close-at", "close at this `STEP`", steps)
	plugincmd.Choose(cmd, &e.stops[websocksemu.Reset], "fault-reset-at", "reset the connection at this `STEP`", steps)
	f.DurationVar(&b.Delay, "fault-delay", 0, "wait before each answer")
	f.BoolVar(&b.ByteAtATime, "fault-byte-at-a-time", false, "send each byte of the handshake on its own")
	f.BoolVar(&b.TLS13, "fault-tls13", false, "speak TLS 1.3 as well, and refuse unknown ALPN by an alert instead of silence")
	f.BoolVar(&b.CloseNotify, "fault-close-notify", false, "end directions of TLS by close_notify, and take the client's for an end")
	f.DurationVar(&b.ClockOffset, "fault-clock-offset", 0, "how far the server's clock is ahead")
	plugincmd.Number(cmd, &b.Status, "fault-status", "answer each request with this HTTP `STATUS`", 200, 599)
	f.StringVar(&b.Body, "fault-body", "", "the body, `TEXT`, of a refusal")
	f.BoolVar(&b.OpenBody, "fault-open-body", false, "give the body of a refusal no length and no end")
	f.StringVar(&e.raw, "fault-raw", "", "send this `TEXT` instead of an HTTP answer; \\r and \\n stand for line ends")
	f.IntVar(&b.Informational, "fault-informational", 0, "how `MANY` 103 answers come first")
	f.BoolVar(&b.LowerCase, "fault-lower-case", false, "write the names of the answer's headers in lower case, as gateways do")
	f.StringArrayVar(&b.Headers, "fault-header", nil, "a further `NAME:VALUE` of the answer's headers; may be repeated")
	f.StringArrayVar(&e.replace, "fault-replace-header", nil, "the value of a header of the 101, `NAME:VALUE`; empty: it is missing; may be repeated")
	f.BoolVar(&b.EndlessHeader, "fault-endless-header", false, "never end the answer's headers")
	f.BytesHexVar(&b.Frame, "fault-frame", nil, "send these bytes, in `HEX`, instead of the ten of the frame")
	plugincmd.Hex(cmd, &b.Method, "fault-method", "choose this SOCKS method")
	plugincmd.Hex(cmd, &b.Reply, "fault-reply", "answer each CONNECT with this reply")
	f.BoolVar(&b.ShortReply, "fault-short-reply", false, "send two bytes of a refusing reply alone")
	f.StringVar(&b.Bound, "fault-bound", "", "the bound `HOST` of a successful reply")
	f.StringVar(&b.Ahead, "fault-ahead", "", "send this `TEXT` together with a successful reply, as if the target had spoken")
	f.BoolVar(&b.DialAtOnce, "fault-dial-at-once", false, "connect to the target before the reply, which tells how that went")
}

func (e *emulation) start(cmd *cobra.Command, c plugincmd.Common) (plugincmd.FarEnd, error) {
	o := &e.options
	o.Address, o.TLS, o.Log = c.Address, c.TLS, c.Log
	if err := e.complete(); err != nil {
		return plugincmd.FarEnd{}, err
	}
	var err error
	if o.Users, err = e.users.Read(cmd.InOrStdin()); err != nil {
		return plugincmd.FarEnd{}, err
	}
	s, err := websocksemu.Start(*o)
	if err != nil {
		return plugincmd.FarEnd{}, err
	}
	attributes := append([]plugincmd.Attribute{{Name: "url", Value: plugincmd.Quote(s.URL())}}, e.users.Attributes()...)
	far := plugincmd.FarEnd{Paste: plugincmd.Upstream("websocks", attributes, c.Trust()...).String(), Close: s.Close}
	if c.TLS {
		if far.CA, err = os.ReadFile(s.CAFile()); err != nil {
			return far, errors.Join(err, s.Close())
		}
	}
	return far, nil
}

// complete makes the options of what the flags cannot set themselves.
func (e *emulation) complete() error {
	o := &e.options
	for target, backend := range o.Targets {
		if err := emu.CheckHostPort(target, backend); err != nil {
			return plugincmd.UsageError{Err: fmt.Errorf("--map: %w", err)}
		}
	}
	for _, ending := range endings {
		if e.stops[ending] == websocksemu.Never {
			continue
		}
		if o.Faults.StopAt != websocksemu.Never {
			return plugincmd.Usage("give one of --fault-silent-at, --fault-close-at and --fault-reset-at")
		}
		o.Faults.StopAt, o.Faults.StopBy = e.stops[ending], ending
	}
	for _, line := range o.Faults.Headers {
		if !strings.Contains(line, ":") {
			return plugincmd.UsageError{Err: fmt.Errorf("--fault-header: %q is not NAME:VALUE", line)}
		}
	}
	for _, line := range e.replace {
		name, value, ok := strings.Cut(line, ":")
		if !ok {
			return plugincmd.UsageError{Err: fmt.Errorf("--fault-replace-header: %q is not NAME:VALUE", line)}
		}
		if !slices.ContainsFunc(websocksemu.ReplaceableHeaders, func(h string) bool { return strings.EqualFold(h, name) }) {
			return plugincmd.UsageError{Err: fmt.Errorf("--fault-replace-header: the 101 has no header %q, only %s", name, strings.Join(websocksemu.ReplaceableHeaders, ", "))}
		}
		if o.Faults.Replace == nil {
			o.Faults.Replace = map[string]string{}
		}
		o.Faults.Replace[name] = strings.TrimSpace(value)
	}
	o.Faults.Raw = strings.NewReplacer(`\r`, "\r", `\n`, "\n").Replace(e.raw)
	return nil
}
