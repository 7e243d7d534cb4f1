package sdk_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/tunneld/tunneld/plugins/sdk"
)

// Acme is the body of an upstream block:
//
//	upstream "acme" "onprem" {
//	  proxy    = "proxy.corp:7000"
//	  password = trimspace(file("/run/secrets/acme"))
//	}
type Acme struct {
	Proxy    string       `tunneld:"proxy,required" doc:"host:port of the proxy"`
	Password sdk.Secret   `tunneld:"password" doc:"the proxy's password"`
	Timeouts sdk.Timeouts `tunneld:"timeouts"`
}

// Validate checks what the tags do not say.
func (a *Acme) Validate() []sdk.Diagnostic {
	return append(sdk.ValidateHostPort(a.Proxy, "proxy"), sdk.ValidateSecret(a.Password, "password")...)
}

// Dial asks the proxy for the target with one line and reads one line.
func (a *Acme) Dial(ctx context.Context, req *sdk.Request) (*sdk.Tunnel, error) {
	connect, cancel := a.Timeouts.ConnectContext(ctx)
	defer cancel()
	conn, err := req.Connect(connect, a.Proxy)
	if err != nil {
		return nil, err
	}

	req.Enter(sdk.StageRequest)
	handshake, cancel := a.Timeouts.HandshakeContext(ctx)
	defer cancel()
	r := bufio.NewReaderSize(conn, 4096) // the longest answer
	var answer []byte
	err = sdk.Bound(handshake, conn, func() error {
		if _, err := fmt.Fprintf(conn, "OPEN %s %s\n", req.Target, a.Password.Reveal()); err != nil {
			return err
		}
		answer, err = r.ReadSlice('\n')
		return err
	})
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	if said := strings.TrimSpace(string(answer)); said != "OK" {
		_ = conn.Close()
		return nil, &sdk.DialError{
			Reason:  sdk.ReasonDenied,
			Message: "the proxy says: " + sdk.Excerpt(said, 200, a.Password.Reveal()),
			Hint:    "check the password, and that the proxy may reach " + req.Target.String(),
		}
	}

	// What the reader holds past the answer is the tunnel's already.
	prefetched, _ := r.Peek(r.Buffered())
	return sdk.Direct(conn, prefetched), nil
}

// A whole plugin: a struct, its Dial, and a main that calls Serve.
func ExampleServe() {
	main := func() {
		os.Exit(sdk.Serve(sdk.Plugin{
			Name:    "acme",
			Version: "1.0.0",
			Summary: "through the proxy of Acme Corp.",
			New:     func() sdk.Dialer { return new(Acme) },
		}))
	}
	_ = main
}
