// Command tunneld-plugin-httpconnect is a plugin for tunneld: an upstream behind
// an HTTP proxy, by CONNECT (RFC 9110, section 9.3.6) with Basic authentication
// (RFC 7617). It is the example of docs/writing-a-plugin.md.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/tunneld/tunneld/plugins/sdk"
)

// Config is one upstream block: its fields are the schema. The daemon checks the
// user's values against it and fills in the defaults before Dial sees them.
type Config struct {
	Proxy    string       `tunneld:"proxy,required" doc:"host:port of the HTTP proxy"`
	Username string       `tunneld:"username" doc:"who to log in as; empty: no login"`
	Password sdk.Secret   `tunneld:"password" required_with:"username" doc:"the password that goes with it"`
	Timeouts sdk.Timeouts `tunneld:"timeouts" doc:"how long the steps of a dial may take"`
}

func plugin() sdk.Plugin {
	return sdk.Plugin{
		Name:    "httpconnect",
		Version: "1.0.0",
		Summary: "a target behind an HTTP proxy, by CONNECT",
		Targets: sdk.TargetsWithPort,
		New:     func() sdk.Dialer { return new(Config) },
	}
}

// Serve comes first: what is printed before it would break the start.
func main() { os.Exit(sdk.Serve(plugin())) }

// Validate says what the schema cannot. It has no side effects.
func (c *Config) Validate() []sdk.Diagnostic {
	ds := sdk.ValidateHostPort(c.Proxy, "proxy")
	if strings.Contains(c.Username, ":") {
		ds = append(ds, sdk.Diagnostic{
			Path:    []string{"username"},
			Summary: "a user name cannot contain a colon",
			Detail:  "Basic authentication ends the name at it.",
		})
	}
	return ds
}

// Dial connects to the proxy, asks it for the target, and returns once it has
// agreed. After that the connection is plain bytes, so the daemon gets the socket
// itself (direct): this process is out of the way.
func (c *Config) Dial(ctx context.Context, req *sdk.Request) (*sdk.Tunnel, error) {
	if req.Target.Port == 0 { // a label: CONNECT cannot carry it, whatever the proxy
		return nil, &sdk.DialError{Stage: sdk.StageRequest, Reason: sdk.ReasonUnreachable, Message: "the target has no port", Hint: "write the listener's target as host:port"}
	}
	conn, err := c.reach(ctx, req)
	if err != nil {
		return nil, err // the SDK tells refused, timeout and the like apart
	}
	req.Enter(sdk.StageRequest) // CONNECT is handshake and request in one
	prefetched, err := c.handshake(ctx, conn, req.Target.String())
	if err != nil {
		_ = conn.Close() // on an error nothing stays open; err says more
		return nil, err
	}
	return sdk.Direct(conn, prefetched), nil
}

// reach connects to the proxy as the user wants it: with the block's socket
// options, and by whichever of a name's addresses answers first.
func (c *Config) reach(ctx context.Context, req *sdk.Request) (net.Conn, error) {
	ctx, cancel := c.Timeouts.ConnectContext(ctx)
	defer cancel()
	return req.Connect(ctx, c.Proxy)
}

// handshake is bounded in time by the timeout and by ctx, whichever ends first.
func (c *Config) handshake(ctx context.Context, conn net.Conn, target string) (prefetched []byte, err error) {
	ctx, cancel := c.Timeouts.HandshakeContext(ctx)
	defer cancel()
	err = sdk.Bound(ctx, conn, func() error {
		prefetched, err = c.connect(conn, target)
		return err
	})
	return prefetched, err
}

// maxHead bounds what the proxy may answer with.
const maxHead = 16 << 10

func (c *Config) connect(conn net.Conn, target string) (prefetched []byte, err error) {
	ask := &http.Request{Method: http.MethodConnect, URL: &url.URL{Host: target}, Host: target, Header: http.Header{}}
	if c.Username != "" {
		login := &http.Request{Header: http.Header{}}
		login.SetBasicAuth(c.Username, c.Password.Reveal())
		ask.Header.Set("Proxy-Authorization", login.Header.Get("Authorization"))
	}
	if err := ask.Write(conn); err != nil {
		return nil, err
	}
	limit := &io.LimitedReader{R: conn, N: maxHead}
	r := bufio.NewReader(limit)
	answer, err := http.ReadResponse(r, ask)
	switch {
	case err != nil && limit.N == 0:
		return nil, refused(sdk.ReasonProtocol, fmt.Sprintf("the proxy's answer has more than %d bytes", maxHead), "check that proxy is an HTTP proxy")
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, err
	case err != nil:
		return nil, refused(sdk.ReasonProtocol, "the proxy's answer cannot be read: "+err.Error(), "check that proxy is an HTTP proxy, and speaks it without TLS")
	}
	if err := c.check(answer); err != nil {
		return nil, err
	}
	// What the target said right behind the answer is the tunnel's first bytes.
	return r.Peek(r.Buffered())
}

// check turns a refusal into what the user is told, and what to do about it. One
// that another upstream of the route may not meet is retryable.
func (c *Config) check(answer *http.Response) error {
	said := "the proxy answered " + answer.Status
	switch answer.StatusCode {
	case http.StatusOK:
		return nil
	case http.StatusProxyAuthRequired:
		return refused(sdk.ReasonUnauthenticated, said, "check username and password")
	case http.StatusForbidden:
		return refused(sdk.ReasonDenied, said, "ask the proxy's administrator to allow CONNECT to this host and port")
	case http.StatusNotFound, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusInternalServerError:
		return &sdk.DialError{Stage: sdk.StageRequest, Reason: sdk.ReasonUnavailable, Retryable: true, Message: said, Hint: "the proxy cannot reach the target: check its name and port, and that it runs"}
	case http.StatusGatewayTimeout:
		return &sdk.DialError{Stage: sdk.StageRequest, Reason: sdk.ReasonTimeout, Retryable: true, Message: said, Hint: "the target does not answer the proxy"}
	}
	return refused(sdk.ReasonProtocol, said, "see the proxy's log")
}

func refused(reason sdk.Reason, message, hint string) error {
	return &sdk.DialError{Stage: sdk.StageRequest, Reason: reason, Message: message, Hint: hint}
}
