// Package soht is tunneld's plugin for SOHT, Socket over HTTP Tunneling: TCP
// connections in HTTP POSTs, through a gateway that lets nothing else pass, to a server
// behind it. It is only the client; package sohtemu has a far end.
package soht

import (
	"context"
	"net/url"
	"sync"

	"github.com/tunneld/tunneld/internal/version"
	"github.com/tunneld/tunneld/plugins/sdk"
)

// Plugin returns the plugin.
func Plugin() sdk.Plugin {
	return sdk.Plugin{
		Name:        "soht",
		Version:     version.Text(),
		Summary:     "TCP in HTTP POSTs (Socket over HTTP Tunneling)",
		Targets:     sdk.TargetsWithPort,
		New:         func() sdk.Dialer { return new(Config) },
		NoHalfClose: true,
		NoAbort:     true,
	}
}

// The modes.
const (
	modeStateful  = "stateful"
	modeStateless = "stateless"
)

// Config is the body of an upstream block. Its zero value is not useful.
type Config struct {
	URL        string            `tunneld:"url,required" doc:"address of the SOHT service, http or https"`
	Mode       string            `tunneld:"mode" default:"stateful" one_of:"stateful,stateless" doc:"stateful: one request that lasts as long as the tunnel brings the data. stateless: short requests only, for gateways that hold answers back; slower. Neither can end one direction alone: the target sees the client's end of file only with the end of the tunnel, which comes once the target has been silent for half_close"`
	Username   string            `tunneld:"username" required_with:"password" doc:"login at the SOHT server"`
	Password   sdk.Secret        `tunneld:"password" required_with:"username" doc:"login at the SOHT server"`
	WriteSize  sdk.Size          `tunneld:"write_size" default:"32KiB" min:"1" max:"64KiB" doc:"most bytes that one request carries to the target; a gateway sees up to three times as many"`
	Headers    map[string]string `tunneld:"headers,sensitive" doc:"headers of each request, for gateways that want some"`
	ViaConnect bool              `tunneld:"via_connect" default:"false" doc:"through an HTTP proxy in via, send the requests to an http url by CONNECT, as those to an https url always are"`
	TLS        *sdk.TLS          `tunneld:"tls" doc:"TLS towards an https url"`
	Timeouts   sdk.Timeouts      `tunneld:"timeouts" min:"1ms" doc:"connect is for each HTTP connection, handshake for TLS and for the answer to an open, which takes as long as the server needs to reach the target"`

	forms      sync.Pool
	background sync.WaitGroup // opens that nobody waits for any more

	repeats repeater // closes without an answer

	mu      sync.Mutex
	closed  bool
	clients map[sdk.SocketOptions]*client
	report  func(sdk.Status)
	status  sdk.Status // as last reported
}

// maxStateful is how many connections a server can bear in mode "stateful", where
// each has a thread of it: containers come with 200, and writes need some.
const maxStateful = 100

// Defaults bounds what keeps threads of the server busy.
func (c *Config) Defaults() sdk.Defaults {
	if c.Mode == modeStateful {
		return sdk.Defaults{MaxConnections: maxStateful}
	}
	return sdk.Defaults{}
}

// Start keeps what an upstream's state is reported to.
func (c *Config) Start(env *sdk.Env) error {
	c.mu.Lock()
	c.report = env.Report
	c.mu.Unlock()
	c.repeats.tellTo(env.Log, func(count int) {
		c.tell(func(s *sdk.Status) { s.Unreleased = count })
	})
	return nil
}

// tell reports the state after a change of it.
func (c *Config) tell(change func(*sdk.Status)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change(&c.status)
	if c.report != nil {
		c.report(c.status)
	}
}

// Close waits, bounded, for the ids of cancelled dials to be freed, and gives
// up kept connections. Tunnels live on, and closes without an answer are still
// repeated.
func (c *Config) Close() error {
	c.mu.Lock()
	c.closed = true
	clients := make([]*client, 0, len(c.clients))
	for _, cl := range c.clients {
		clients = append(clients, cl)
	}
	c.mu.Unlock()
	c.background.Wait()
	c.repeats.close()
	for _, cl := range clients {
		cl.transport.Load().CloseIdleConnections()
	}
	return nil
}

// client returns the client whose connections have these socket options.
func (c *Config) client(req *sdk.Request) (*client, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	u, err := url.Parse(c.URL)
	if err != nil {
		return nil, err
	}
	tlsConfig, err := req.TLS(c.TLS).Config(u.Hostname())
	if err != nil {
		return nil, err
	}
	if cl := c.clients[req.Options]; cl != nil {
		cl.follow(tlsConfig)
		return cl, nil
	}
	out := req.Outbound().Within(c.Timeouts.Connect)
	header, host := c.header(u)
	cl := &client{
		url:      u,
		host:     host,
		header:   header,
		forms:    &c.forms,
		pollTime: pollTime,
		secrets:  append(c.secrets(), out.Secrets()...),
		repeats:  &c.repeats,
	}
	cl.transport.Store(c.newTransport(cl, out, tlsConfig))
	if c.clients == nil {
		c.clients = make(map[sdk.SocketOptions]*client)
	}
	c.clients[req.Options] = cl
	return cl, nil
}

// Dial opens a connection at the server. It does not wait for the target to
// send anything.
func (c *Config) Dial(ctx context.Context, req *sdk.Request) (*sdk.Tunnel, error) {
	stream, o, err := c.dial(ctx, req)
	if err != nil {
		return nil, err
	}
	return sdk.Relay(stream, o.local, o.remote), nil
}

func (c *Config) dial(ctx context.Context, req *sdk.Request) (sdk.Stream, opened, error) {
	req.Enter(sdk.StageConnect)
	if req.Target.Port == 0 {
		return nil, opened{}, &sdk.DialError{
			Stage: sdk.StageRequest, Reason: sdk.ReasonUnreachable,
			Message: "the target has no port", Hint: "set the listener's target to host:port",
		}
	}
	cl, err := c.client(req)
	if err != nil {
		return nil, opened{}, err
	}
	o, err := c.open(ctx, cl, req)
	c.dialed(err)
	switch {
	case err != nil:
		return nil, opened{}, err
	case c.Mode == modeStateless:
		return newStateless(cl, o.id, int(c.WriteSize)), o, nil
	}
	return newStateful(cl, o.id, int(c.WriteSize)), o, nil
}
