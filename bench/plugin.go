package main

import (
	"context"
	"fmt"
	"net"
	"strconv"

	"github.com/tunneld/tunneld/plugins/sdk"
)

// relayPlugin dials TCP and makes a relay of it: what the relay path costs,
// without a protocol.
type relayPlugin struct{}

func (*relayPlugin) Dial(ctx context.Context, req *sdk.Request) (*sdk.Tunnel, error) {
	req.Enter(sdk.StageConnect)
	c, err := req.Connect(ctx, req.Target.String())
	if err != nil {
		return nil, err
	}
	return sdk.RelayConn(c), nil
}

func servePlugin() int {
	return sdk.Serve(sdk.Plugin{
		Name:    "benchrelay",
		Version: "1.0.0",
		Summary: "a TCP connection, pumped by the plugin",
		New:     func() sdk.Dialer { return &relayPlugin{} },
	})
}

func splitTarget(s string) (string, uint16, error) {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return "", 0, err
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return "", 0, fmt.Errorf("port of %q: %w", s, err)
	}
	return host, uint16(n), nil
}
