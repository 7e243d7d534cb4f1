// Package azrelay is the plugin for Azure Relay's Hybrid Connections. It is only the
// sender; the far end listens, with Microsoft's azbridge or any other listener.
package azrelay

import (
	"sync"
	"time"

	"github.com/tunneld/tunneld/internal/version"
	"github.com/tunneld/tunneld/plugins/sdk"
)

// Plugin describes the plugin for sdk.Serve.
func Plugin() sdk.Plugin {
	return sdk.Plugin{
		Name:    "azrelay",
		Version: version.Text(),
		Summary: "Azure Relay Hybrid Connections, through a WebSocket per connection",
		Targets: sdk.TargetsOrLabels,
		New:     func() sdk.Dialer { return new(Config) },
		// A listener accepts before it connects to the target.
		NoTargetAnswer: true,
	}
}

// The values of Config.TokenIn and Config.Framing.
const (
	InHeader        = "header"
	InQuery         = "query"
	FramingRaw      = "raw"
	FramingAzbridge = "azbridge"
)

// Config is the body of an upstream block. It does not change once Start was
// called.
type Config struct {
	Namespace        string            `tunneld:"namespace" doc:"the relay's host name, such as myrelay.servicebus.windows.net"`
	HybridConnection string            `tunneld:"hybrid_connection" doc:"the hybrid connection's path; a suffix and a query reach the listener"`
	KeyName          string            `tunneld:"key_name" doc:"the shared access policy to sign with; it needs the Send right"`
	Key              sdk.Secret        `tunneld:"key" doc:"the policy's primary or secondary key, as the portal shows it"`
	ConnectionString sdk.Secret        `tunneld:"connection_string" conflicts_with:"namespace,key_name,key" doc:"instead of namespace, hybrid_connection, key_name and key"`
	ReadyToken       sdk.Secret        `tunneld:"token" doc:"a ready-made shared access signature, instead of a key"`
	TokenTTL         time.Duration     `tunneld:"token_ttl" default:"1h" min:"1m" doc:"how long tokens signed here are valid"`
	TokenIn          string            `tunneld:"token_in" default:"header" one_of:"header,query" doc:"where the token goes"`
	Endpoint         string            `tunneld:"endpoint" doc:"host:port to connect to instead of namespace:443; ws:// in front for plain connections"`
	Headers          map[string]string `tunneld:"headers,sensitive" doc:"further headers of the upgrade request, such as User-Agent; the listener sees them"`
	Framing          string            `tunneld:"framing" default:"raw" one_of:"raw,azbridge" doc:"raw, or azbridge where Microsoft's azbridge listens"`
	PortName         string            `tunneld:"port_name" doc:"azbridge: the port's name; default the target's port in decimal"`
	PingInterval     time.Duration     `tunneld:"ping_interval" default:"30s" doc:"how long a direction may be silent before a ping; 0s for none"`
	PingTimeout      time.Duration     `tunneld:"ping_timeout" doc:"how long a ping may stay unanswered while no byte flows; default two intervals"`
	TLS              sdk.TLS           `tunneld:"tls" doc:"TLS towards the service"`
	Timeouts         Timeouts          `tunneld:"timeouts" min:"1ms" doc:"how long the parts of a dial may take"`

	env   sdk.Env
	token tokenSource

	mu     sync.Mutex
	status sdk.Status // as last reported
}

// Timeouts is the timeouts block.
type Timeouts struct {
	Connect   time.Duration `tunneld:"connect" default:"10s" dial_time:"step" doc:"how long the connection may take, a proxy's part included"`
	Handshake time.Duration `tunneld:"handshake" default:"10s" dial_time:"answer" doc:"how long the TLS handshake may take, and azbridge's answer"`
	Accept    time.Duration `tunneld:"accept" default:"35s" dial_time:"answer" doc:"how long the service may take to answer; it waits up to 30s for a listener"`
}

// Start keeps the environment for reports.
func (c *Config) Start(env *sdk.Env) error {
	c.env = *env
	return nil
}

// report tells the daemon the upstream's state where it has changed.
func (c *Config) report(health sdk.Health, message string) {
	if c.env.Report == nil {
		return
	}
	expires, renewed := c.token.validity()
	st := sdk.Status{Health: health, Message: message, CredentialExpires: expires, CredentialRenewed: renewed}
	c.mu.Lock()
	defer c.mu.Unlock()
	if st != c.status {
		c.status = st
		c.env.Report(st)
	}
}
