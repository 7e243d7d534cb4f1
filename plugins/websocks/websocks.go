// Package websocks is the plugin for WebSocks servers: its TCP tunnels pass a gateway as
// one endless WebSocket message.
//
// After an HTTP upgrade come the header of a frame of 2^63-1 bytes, SOCKS5, and then
// plain bytes. So over ws:// the plugin hands the connection to the daemon; over wss://
// it pumps. README.md is the user's page.
package websocks

import (
	"context"
	"errors"
	"time"

	"github.com/tunneld/tunneld/internal/version"
	"github.com/tunneld/tunneld/plugins/sdk"
)

// Plugin describes the plugin.
func Plugin() sdk.Plugin {
	return sdk.Plugin{
		Name:    "websocks",
		Version: version.Text(),
		Summary: "connects through a WebSocks server behind a gateway that passes only HTTP and WebSocket",
		Targets: sdk.TargetsWithPort,
		New:     func() sdk.Dialer { return new(Config) },
		// The server connects to the target after the client's first byte.
		NoTargetAnswer: true,
		NoGreeting:     true,
		// The original server never sends TLS's close_notify: over wss:// a cut
		// session ends like another, unless require_close_notify is set.
		NoReset: true,
	}
}

// Config is the body of an upstream "websocks" block.
type Config struct {
	URL      string            `tunneld:"url,required" doc:"where the server is: ws:// or wss://, its host and port, and any path"`
	Username string            `tunneld:"username" required_with:"password" doc:"the user's name at the server, without a colon; with password"`
	Password sdk.Secret        `tunneld:"password" required_with:"username" doc:"the user's password; it is sent hashed and salted with the minute, so both clocks have to agree"`
	Headers  map[string]string `tunneld:"headers,sensitive" doc:"further headers of the upgrade request; Host replaces the URL's host there"`
	TLS      *sdk.TLS          `tunneld:"tls" doc:"how wss:// is secured; server_name replaces the URL's host"`
	// RequireCloseNotify says nothing of what is sent, which is never the alert.
	RequireCloseNotify bool         `tunneld:"require_close_notify" default:"false" doc:"over wss://, take an end of file without TLS's close_notify for an error, and reset the client; the original server never sends one"`
	Timeouts           sdk.Timeouts `tunneld:"timeouts" min:"1ms" doc:"connect bounds the TCP connection, handshake everything from there to the server's answer"`

	report func(sdk.Status) // nil: to nobody
	// now is the clock that the password is salted by; nil: time.Now.
	now func() time.Time
}

// Start keeps what the upstream's state is reported to.
func (c *Config) Start(env *sdk.Env) error {
	c.report = env.Report
	return nil
}

// tell reports the upstream's state after a dial. What the target is to blame
// for says that the upstream works, and a dial that was given up says nothing.
func (c *Config) tell(err error) {
	switch {
	case c.report == nil || errors.Is(err, context.Canceled):
	case err == nil || errors.Is(err, errTarget):
		c.report(sdk.Status{Health: sdk.HealthOK})
	default:
		c.report(sdk.Status{Health: sdk.HealthFailing, Message: err.Error()})
	}
}

func (c *Config) clock() time.Time {
	if c.now == nil {
		return time.Now()
	}
	return c.now()
}
