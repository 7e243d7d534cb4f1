// Package sohtcmd has tunneld's command that emulates a SOHT server.
package sohtcmd

import (
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tunneld/tunneld/internal/emu"
	"github.com/tunneld/tunneld/internal/plugincmd"
	"github.com/tunneld/tunneld/plugins/soht/sohtemu"
)

// emulation is what the command line says.
type emulation struct {
	options sohtemu.Options
	users   *plugincmd.UserFiles
}

// Emulate returns the command "soht" of "emulate". It runs until its context ends.
func Emulate() *cobra.Command {
	_, cmd := newEmulation()
	return cmd
}

func newEmulation() (*emulation, *cobra.Command) {
	e := &emulation{}
	cmd := plugincmd.Emulation{
		Protocol: "soht",
		Short:    "Emulate a SOHT server until interrupted",
		Long: `soht emulates the original Java server, for both modes. A client may ask for what
--map names, and for addresses of this machine, localhost included. No user is asked
for a password unless --user names one.`,
		Example: `  tunneld emulate soht --map orders-db.corp:5432=127.0.0.1:15432
  tunneld emulate soht --user alice=password.txt --map db.corp=127.0.0.1
  tunneld emulate soht --fault-status open=503 --fault-silent read`,
		Address: "127.0.0.1:20007",
		Secure:  "serve https://",
		Start:   e.start,
	}.Command()
	o, f := &e.options, cmd.Flags()
	plugincmd.Pairs(cmd, &o.Hosts, "map", "HOST[:PORT]=BACKEND", "what a client may ask for, and the backend's host and port, or hosts alone for every port")
	e.users = plugincmd.Logins(cmd)
	f.StringVar(&o.Path, "path", sohtemu.DefaultPath, "the `PATH` of the service")
	plugincmd.Choose(cmd, &o.Container, "container", "whose way of answering the server has",
		map[string]sohtemu.Container{"tomcat": sohtemu.Tomcat, "jetty": sohtemu.Jetty})
	f.IntVar(&o.Threads, "threads", 200, "how `MANY` requests are served at a time; a read keeps one")
	f.IntVar(&o.FirstID, "first-id", 0, "the first connection's `ID`")
	f.IntVar(&o.FormLimit, "form-limit", 200_000, "how many `BYTES` a form may have")
	f.DurationVar(&o.IdlePoll, "idle-poll", 0, "how long a readwrite waits for data, instead of the original's 100ms")
	e.faults(cmd)
	return e, cmd
}

// faults defines the flags of what goes wrong.
func (e *emulation) faults(cmd *cobra.Command) {
	b, f := &e.options.Faults, cmd.Flags()
	f.DurationVar(&b.Delay, "fault-delay", 0, "wait before each request is looked at, as for a network")
	f.StringVar(&b.OpenFail, "fault-open-fail", "", "answer each open with FAIL and this `TEXT`")
	f.BoolVar(&b.ForgetIDs, "fault-forget-ids", false, "know no connection's id")
	f.Int64Var(&b.CutReadAfter, "fault-cut-read-after", 0, "break a read's HTTP connection after so many `BYTES`")
	f.BoolVar(&b.NoMark, "fault-no-mark", false, "end a read without the 00 at the target's end of file")
	f.DurationVar(&b.MarkDelay, "fault-mark-delay", 0, "wait between the 00 at the target's end of file and the end of the answer")
	f.BoolVar(&b.ByteAtATime, "fault-byte-at-a-time", false, "send a read's data a byte a chunk")
	f.BoolVar(&b.NoKeepAlive, "fault-no-keep-alive", false, "close the HTTP connection after each answer")
	f.BoolVar(&b.HangUp, "fault-hang-up", false, "close the HTTP connection after each answer and do not say so, as tinyproxy does")
	f.BoolVar(&b.HTTP10, "fault-http10", false, "answer as an HTTP/1.0 proxy that hides the answer's length")

	b.On = map[string]sohtemu.Fault{}
	e.onAction(cmd, "fault-silent", "ACTION", "never answer this action", func(f *sohtemu.Fault, _ string) error { f.Silent = true; return nil })
	e.onAction(cmd, "fault-drop", "ACTION", "do what this action asks for, and close the HTTP connection without an answer", func(f *sohtemu.Fault, _ string) error { f.Drop = true; return nil })
	e.onAction(cmd, "fault-cut", "ACTION", "do what this action asks for, and break the answer off half-way", func(f *sohtemu.Fault, _ string) error { f.Cut = true; return nil })
	e.onAction(cmd, "fault-status", "ACTION=STATUS", "answer this action with this HTTP status", func(f *sohtemu.Fault, value string) (err error) {
		f.Status, err = plugincmd.ParseNumber(value, 200, 599)
		return err
	})
	e.onAction(cmd, "fault-header", "ACTION=NAME:VALUE", "answer this action with this header", func(f *sohtemu.Fault, value string) error {
		name, value, ok := strings.Cut(value, ":")
		if !ok {
			return errors.New("it is not ACTION=NAME:VALUE")
		}
		answer(f, map[string]string{name: strings.TrimSpace(value)})
		return nil
	})
	e.onAction(cmd, "fault-body", "ACTION=TEXT", "answer this action with this text", func(f *sohtemu.Fault, value string) error {
		f.Body = value
		answer(f, nil)
		return nil
	})
	e.onAction(cmd, "fault-redirect", "ACTION=URL", "answer this action with a redirect, as a gateway does", func(f *sohtemu.Fault, value string) error {
		sent := sohtemu.Redirect(value)
		f.Status = sent.Status
		answer(f, sent.Header)
		return nil
	})
	e.onAction(cmd, "fault-login-page", "ACTION", "answer this action with a page to log in, as a gateway does", func(f *sohtemu.Fault, _ string) error {
		page := sohtemu.LoginPage()
		f.Status, f.Body = page.Status, page.Body
		answer(f, page.Header)
		return nil
	})
	e.onAction(cmd, "fault-after", "ACTION=MANY", "have so many requests of this action go well first", func(f *sohtemu.Fault, value string) (err error) {
		f.After, err = plugincmd.ParseNumber(value, 0, math.MaxInt32)
		return err
	})
}

// answer makes a whole answer of a fault, with these headers.
func answer(f *sohtemu.Fault, header map[string]string) {
	if f.Status == 0 {
		f.Status = http.StatusOK
	}
	if f.Header == nil {
		f.Header = map[string]string{}
	}
	maps.Copy(f.Header, header)
}

func (e *emulation) start(cmd *cobra.Command, c plugincmd.Common) (plugincmd.FarEnd, error) {
	o := &e.options
	o.Address, o.Log = c.Address, c.Log
	if err := check(o); err != nil {
		return plugincmd.FarEnd{}, err
	}
	var err error
	if o.Users, err = e.users.Read(cmd.InOrStdin()); err != nil {
		return plugincmd.FarEnd{}, err
	}
	var far plugincmd.FarEnd
	if c.TLS {
		authority, err := emu.NewAuthority()
		if err != nil {
			return far, err
		}
		certificate, err := authority.Server()
		if err != nil {
			return far, err
		}
		o.TLS = &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{certificate}}
		far.CA = authority.PEM()
	}
	s, err := sohtemu.Start(*o)
	if err != nil {
		return far, err
	}
	attributes := append([]plugincmd.Attribute{{Name: "url", Value: plugincmd.Quote(s.URL())}}, e.users.Attributes()...)
	far.Paste, far.Close = plugincmd.Upstream("soht", attributes, c.Trust()...).String(), s.Close
	return far, nil
}

// check says what makes no sense, as far as the flags do not say so themselves.
func check(o *sohtemu.Options) error {
	for target, backend := range o.Hosts {
		if err := checkMapping(target, backend); err != nil {
			return plugincmd.UsageError{Err: fmt.Errorf("--map: %w", err)}
		}
	}
	switch {
	case !strings.HasPrefix(o.Path, "/"):
		return plugincmd.Usage("--path must begin with a slash")
	case o.Threads < 1 || o.FormLimit < 1:
		return plugincmd.Usage("--threads and --form-limit must be at least 1")
	}
	for action, f := range o.Faults.On {
		kinds := 0
		for _, set := range []bool{f.Status != 0, f.Silent, f.Drop, f.Cut} {
			if set {
				kinds++
			}
		}
		switch {
		case kinds > 1:
			return plugincmd.UsageError{Err: fmt.Errorf("more than one thing goes wrong with %s: give one --fault- flag for it", action)}
		case kinds == 0:
			return plugincmd.UsageError{Err: fmt.Errorf("--fault-after %s=%d: say what goes wrong then, such as --fault-silent %s", action, f.After, action)}
		}
	}
	return nil
}

// checkMapping takes a host and port on both sides, or a host on both.
func checkMapping(target, backend string) error {
	if strings.Contains(target, ":") || strings.Contains(backend, ":") {
		return emu.CheckHostPort(target, backend)
	}
	if target == "" || backend == "" {
		return fmt.Errorf("%q=%q: a host is missing", target, backend)
	}
	return nil
}
