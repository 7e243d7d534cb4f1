package sdk_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"strings"
	"time"

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

// Dial asks the proxy for the target with one line and reads one line.
func (a *Acme) Dial(ctx context.Context, req *sdk.Request) (*sdk.Tunnel, error) {
	req.Enter(sdk.StageConnect)
	connect, cancel := a.Timeouts.ConnectContext(ctx)
	defer cancel()
	conn, err := req.Connect(connect, a.Proxy)
	if err != nil {
		return nil, err
	}

	req.Enter(sdk.StageRequest)
	// A read does not know of a context: a deadline ends it with the handshake's.
	handshake, cancel := a.Timeouts.HandshakeContext(ctx)
	defer cancel()
	stop := context.AfterFunc(handshake, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	r := bufio.NewReader(conn)
	_, err = fmt.Fprintf(conn, "OPEN %s %s\n", req.Target, a.Password.Reveal())
	var answer string
	if err == nil {
		answer, err = r.ReadString('\n')
	}
	if !stop() { // the deadline was set: the socket is spoiled
		err = handshake.Err()
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	if answer = strings.TrimSpace(answer); answer != "OK" {
		_ = conn.Close()
		return nil, &sdk.DialError{
			Reason:  sdk.ReasonDenied,
			Message: "the proxy says " + answer,
			Hint:    "Check the password, and that the proxy may reach " + req.Target.String() + ".",
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

// The schema of a struct is what "tunneld plugin schema" shows.
func ExampleSchemaOf() {
	schema, err := sdk.SchemaOf(new(Acme))
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, a := range schema.GetAttributes() {
		fmt.Println(a.GetName(), a.GetType().GetKind().Text(), "required:", a.GetRequired(), "sensitive:", a.GetSensitive())
	}
	// Output:
	// proxy string required: true sensitive: false
	// password string required: false sensitive: true
}
