package main

import (
	"context"
	"net"

	"github.com/tunneld/tunneld/plugins/sdk"
)

// relayName is the plugin that is not bundled: a relay to the target itself.
const relayName = "chaosrelay"

type relayDialer struct {
	Note string `tunneld:"note" doc:"changes the block and nothing else"`
}

// Dial relays a TCP connection to the target.
func (*relayDialer) Dial(ctx context.Context, req *sdk.Request) (*sdk.Tunnel, error) {
	req.Enter(sdk.StageConnect)
	c, err := req.Connect(ctx, req.Target.String())
	if err != nil {
		return nil, err
	}
	// If this process is killed, the far end sees no clean end.
	if err := c.(*net.TCPConn).SetLinger(0); err != nil {
		_ = c.Close() // the first error says more
		return nil, err
	}
	return sdk.RelayConn(c), nil
}

func relayPlugin() sdk.Plugin {
	return sdk.Plugin{Name: relayName, Version: "1.0.0", Summary: "a relay to be killed", New: func() sdk.Dialer { return new(relayDialer) }}
}
