package listen

import (
	"context"
	"fmt"

	"github.com/tunneld/tunneld/core/internal/tunnel"
)

var redirectKind = Kind{
	Name:        KindRedirect,
	Summary:     "whatever they speak: they connect to their target, and a rule of nftables sends them here (Linux)",
	NamesTarget: true,
	System:      "linux",
	New:         func(Settings) Protocol { return redirectProtocol{} },
}

// redirectProtocol hears nothing: the system knows where a client wanted to go.
type redirectProtocol struct{ wordless }

func (redirectProtocol) Asks() bool { return false }

func (p redirectProtocol) Learn(_ context.Context, c *Conn) (Request, *Failure) {
	original, local, err := destinations(c)
	if err == nil && original == local {
		// Its target would be the listener, which would connect to itself.
		err = &mistake{fmt.Sprintf("the client was not redirected: it has connected to %s, the listener itself", local), notAProxy}
	}
	if err != nil {
		return Request{}, &Failure{Err: err, Reset: true}
	}
	return ask(original.Addr().String(), original.Port(), nil, p), nil
}

const notAProxy = "the listener is for connections that a rule of nftables redirects to it, in the network namespace that tunneld runs in; a client that connects to it itself, as to a proxy, needs a listener of kind socks5, http or mixed"

// wordless is a Responder of protocols that have no word for a client.
type wordless struct{}

func (wordless) Ready(_ context.Context, c *Conn) (tunnel.End, error) { return c.End(), nil }

func (wordless) Refuse(_ context.Context, c *Conn, _ *tunnel.DialError) { c.Reset() }
